"""The page of the embedded tasks: controls of equal cost, and what is said about them."""

from pathlib import Path

import pytest

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.metrics.statistics import wilson
from dllm.report.embedded import BASELINE, CASES, SWEEP, Cell, page
from scripts.report import main


def cell(correct: int, nfe: float, n: int = 200) -> Cell:
    low, high = wilson(correct, n)
    grades = (True,) * correct + (False,) * (n - correct)
    return Cell(n, correct / n, low, high, nfe, 20 / nfe, grades)


def cells(rule: Cell) -> dict[str, Cell]:
    sweep = {name: cell(170 - 10 * i, 12.0 - i) for i, name in enumerate(SWEEP)}
    return {BASELINE: cell(180, 32), **sweep, "localleap": rule}


def test_a_rule_that_brings_nothing() -> None:
    text = page({"listops": cells(cell(158, 10.6))}, 200)
    row = next(line for line in text.splitlines() if line.startswith("| localleap"))
    assert "| threshold 0.9 | 0.800 | 11.00 |" in row
    assert "3.0 times fewer forwards than one token per step" in text
    assert "accuracy below it on listops (-0.110)." in text
    assert "nothing is gained over it." in text


def test_a_rule_that_gains() -> None:
    text = page({"listops": cells(cell(198, 6.0)), "json": cells(cell(20, 6.0))}, 200)
    assert "it is above it on listops (+0.440); below it on json (-0.450)." in text


def test_a_rule_dearer_than_the_sweep() -> None:
    text = page({"listops": cells(cell(170, 16.0))}, 200)
    assert "nothing is gained over it, although it makes more forwards on listops." in text


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_a_legal_command(name: str) -> None:
    config = compose(CASES[name])
    rule = build(config.sampler, "sampler")
    rule.validate(config.gen_length)


def test_unknown_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["embedded", "confidence", "--samplers", "luck", "--output", str(tmp_path / "x.md")]
    assert main(arguments) == 2
    assert "--samplers 'luck' is not one of low_confidence" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        compose(["sampler=luck"])

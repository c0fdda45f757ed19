"""Columns of the closed forms: read from the run's own steps."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from sample_results import sample

from dllm.report.cells import Cell
from dllm.report.columns import COLUMNS
from dllm.runs.folder import RunFolder
from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace


def cell(folder: Path, kind: str, steps: int | None) -> Cell:
    config = {"gen_length": 6, "task": {"kinds": [kind]}, "sampler": {"steps": steps}}
    config |= {"model": {}, "cache": {}, "constraint": {}}
    OmegaConf.save(config, folder / "config.yaml")
    return Cell({}, [], RunFolder(folder))


@pytest.mark.parametrize(
    ("kind", "steps", "ideal", "lost"),
    [
        ("copy", 1, "1.000", "0.000"),
        ("shuffle", 3, "0.312", "1.678"),
        ("shuffle", 4, "0.625", "0.678"),  # steps of 2, 2, 1, 1 as the quota spreads them
        ("replace_random", 6, "1.000", "0.000"),
        ("shuffle", None, "-", "-"),
    ],
)
def test_columns(tmp_path: Path, kind: str, steps: int | None, ideal: str, lost: str) -> None:
    made = cell(tmp_path, kind, steps)
    assert (COLUMNS["ideal"].show(made), COLUMNS["bits lost"].show(made)) == (ideal, lost)


def test_the_order_of_decoding_is_read_from_the_trace(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    steps = [Step(ForwardKind.STEP, 4, 0, positions=[n], tokens=[5]) for n in (2, 1, 0)]
    folder.append(sample("one"), Trace("one", 4, 0, steps))
    folder.append(sample("two"), Trace("two", 4, 0, steps[::-1]))
    once = Step(ForwardKind.STEP, 4, 0, positions=[0, 1, 2], tokens=[5, 6, 7])
    folder.append(sample("all"), Trace("all", 4, 0, [once]))
    assert COLUMNS["order"].show(Cell({}, folder.samples(), folder)) == "+0.00"

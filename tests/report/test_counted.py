"""A run beside the published figure, under that figure's own count of tokens."""

from pathlib import Path

import pytest

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.metrics.counters import COUNTERS
from dllm.report.counted import beside_published, speeds
from dllm.runs.execute import execute
from scripts.report import main


QUIET = [
    "task=listops",
    "tracker=none",
    "progress=false",
    "trace=false",
    "baseline=false",
    "limit=2",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    small = ["gen_length=16", "sampler=threshold", "sampler.region.block_length=16"]
    folder, _ = execute(compose([*QUIET, *small, f"output={output}"]), "threshold")
    return folder


def test_every_count_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = speeds(run)
    assert found.keys() == COUNTERS.keys()
    assert found["canvas"].tokens == 16
    assert found["effective"].tokens == found["answer"].tokens < 16
    assert main(["counters", str(run)]) == 0
    assert "fastdllm-answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            "fast_dllm: LLaDA-8B-Instruct, GSM8K, 5-shot, gen_length 256, block 32, threshold 0.9",
            ("score: published 79.2, here", "16.5 TPS[fastdllm-answer], here"),
        ),
        (
            "localleap: LLaDA-8B-Instruct, HumanEval, 0.9 / 0.75 / 4, H100",
            ("definition unknown, nothing to compare",),
        ),
    ],
)
def test_beside_the_published_row(run: Path, row: str, said: tuple[str, ...]) -> None:
    lines = "\n".join(beside_published(run, row))
    for words in said:
        assert words in lines


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="is no run's folder"):
        speeds(tmp_path)
    assert main(["counters", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")

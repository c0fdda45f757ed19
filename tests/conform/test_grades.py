"""Recorded scores of made-up outputs."""

import json
from pathlib import Path

import pytest

from dllm.conform import grades
from dllm.conform.traces import Verdict, method_of
from dllm.errors import ConfigError


RECORDED = Path("../shared/golden/grades/parallelbench.json")
DATA = Path("../shared/data/parallelbench")


def files(folder: Path, score: float) -> tuple[Path, Path]:
    """A recorded grade of a one-row benchmark, and the benchmark."""
    data = folder / "data" / "line"
    data.mkdir(parents=True)
    (data / "copy.jsonl").write_text(json.dumps({"input": {}, "answer": '["A"]'}))
    (data / "task_config.yaml").write_text("line/copy: {metric: list_match_score, prompt: Copy}")
    case = {"task": "line/copy", "index": 0, "output": "[A]", "score": score, "score_strict": 0.0}
    path = folder / "grades.json"
    path.write_text(json.dumps({"method": grades.METHOD, "cases": [case]}))
    return path, folder / "data"


def test_grades_are_compared(tmp_path: Path) -> None:
    path, data = files(tmp_path, score=1.0)
    assert method_of(path) == grades.METHOD
    assert grades.check(path, data).verdict is Verdict.PASSED


def test_a_difference_is_shown(tmp_path: Path) -> None:
    result = grades.check(*files(tmp_path, score=0.0))
    assert result.verdict is Verdict.FAILED
    assert "case 0 (line/copy): {'score': 1.0}" in result.line()


def test_the_benchmark_must_be_there(tmp_path: Path) -> None:
    path, _ = files(tmp_path, score=1.0)
    with pytest.raises(ConfigError, match="--data"):
        grades.check(path, tmp_path / "nowhere")


@pytest.mark.skipif(not RECORDED.is_file(), reason=f"{RECORDED} is not there")
def test_recorded_grades() -> None:
    result = grades.check(RECORDED, DATA)
    assert result.verdict is Verdict.PASSED, result.line()

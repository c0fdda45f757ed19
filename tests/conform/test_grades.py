"""Recorded scores of made-up outputs."""

import json
from pathlib import Path

import pytest

from dllm.conform.grades import METHOD
from dllm.conform.recorded import FileResult, Places, Verdict, read
from dllm.conform.replay import check


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
    path.write_text(json.dumps({"method": METHOD, "cases": [case]}))
    return path, folder / "data"


def replayed(path: Path, data: Path) -> FileResult:
    return check(read(path), Places(data=data))


def test_grades_are_compared(tmp_path: Path) -> None:
    path, data = files(tmp_path, score=1.0)
    assert replayed(path, data).verdict is Verdict.PASSED


def test_a_difference_is_shown(tmp_path: Path) -> None:
    result = replayed(*files(tmp_path, score=0.0))
    assert result.verdict is Verdict.FAILED
    assert "case 0 (line/copy): {'score': 1.0}" in result.line()


def test_the_benchmark_must_be_there(tmp_path: Path) -> None:
    path, _ = files(tmp_path, score=1.0)
    result = replayed(path, tmp_path / "nowhere")
    assert result.verdict is Verdict.FAILED
    assert "--data" in result.line()


@pytest.mark.skipif(not RECORDED.is_file(), reason=f"{RECORDED} is not there")
def test_recorded_grades() -> None:
    result = replayed(RECORDED, DATA)
    assert result.verdict is Verdict.PASSED, result.line()

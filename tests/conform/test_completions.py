"""Recorded answers about partial texts."""

import json
from pathlib import Path

from dllm.conform.completions import METHOD
from dllm.conform.recorded import FileResult, Places, Verdict, read
from dllm.conform.replay import check


RECORDED = Path(__file__).parents[1] / "golden" / "constraints" / "grammar_decisions.json"
CASES = [
    {"canvas": [None, "b"], "gap": "one", "end": True, "completable": True},
    {"canvas": ["ba", None], "gap": "any", "end": True, "completable": False},
    {"canvas": ["a"], "gap": "any", "end": False, "completable": True},
]


def written(folder: Path, cases: list) -> Path:
    path = folder / "answers.json"
    whole = [{"grammar": 'start: "a" start | "b"', "alphabet": "ab", **case} for case in cases]
    path.write_text(json.dumps({"method": METHOD, "cases": whole}))
    return path


def replayed(path: Path) -> FileResult:
    return check(read(path), Places())


def test_every_case_is_decided(tmp_path: Path) -> None:
    result = replayed(written(tmp_path, CASES))
    assert result.verdict is Verdict.PASSED
    assert "3/3 cases" in result.line()


def test_a_wrong_answer_is_shown(tmp_path: Path) -> None:
    result = replayed(written(tmp_path, [{**CASES[0], "completable": False}]))
    assert result.verdict is Verdict.FAILED
    assert "case 0: yes not no" in result.line()


def test_recorded_decisions() -> None:
    result = replayed(RECORDED)
    assert result.verdict is Verdict.PASSED, result.line()

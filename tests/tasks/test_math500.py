"""MATH-500: answers that are equal as mathematics."""

import json
from pathlib import Path

import pytest

from dllm.errors import ConfigError
from dllm.tasks import math500
from dllm.tasks.math500 import Math500


@pytest.fixture
def task(tmp_path: Path) -> Math500:
    row = {
        "problem": "Halve 1.",
        "solution": "It is $\\boxed{\\frac{1}{2}}$.",
        "answer": "\\frac{1}{2}",
    }
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    return Math500(str(tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("text", "correct", "unparsed"),
    [
        ("It is $\\boxed{\\frac{1}{2}}$.", True, False),
        ("So \\boxed{0.5}", True, False),
        ("The answer is $\\frac{2}{4}$", True, False),
        ("\\boxed{2}", False, False),
        ("I do not know", False, True),
    ],
)
def test_answers(task: Math500, text: str, correct: bool, unparsed: bool) -> None:
    pytest.importorskip("math_verify")
    (sample,) = task.samples("test")
    grade = task.assess(sample, text)
    assert (grade.correct, grade.unparsed) == (correct, unparsed)


def test_the_package_is_asked_for(task: Math500, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math500, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package math-verify"):
        task.samples("test")

"""MATH-500: answers that are equal as mathematics."""

import ast
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
    return Math500(str(tmp_path), "boxed", 0, "<think>")


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
    assert sample.prefix == "<think>"
    grade = task.assess(sample, text)
    assert (grade.correct, grade.unparsed) == (correct, unparsed)


def test_the_package_is_asked_for(task: Math500, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math500, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package math-verify"):
        task.samples("test")


def test_minerva_asks_as_the_harness_does(tmp_path: Path) -> None:
    """Its file is parsed, not imported: it insists on another antlr."""
    pytest.importorskip("math_verify")
    tasks = pytest.importorskip("lm_eval.tasks")
    source = (Path(tasks.__file__).parent / "minerva_math" / "utils.py").read_text()
    of_name = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    told = ast.literal_eval(of_name["list_fewshot_samples"].body[0].value)  # type: ignore[attr-defined]
    row = {"problem": "Halve 1.", "solution": "It is $\\boxed{\\frac{1}{2}}$."}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    task = Math500(str(tmp_path), "minerva", 4, "")
    (sample,) = task.samples("test")
    asked = [f"Problem:\n{doc['problem']}\n\nSolution: {doc['solution']}\n\n" for doc in told]
    assert sample.prompt == "".join(asked) + "Problem:\nHalve 1.\n\nSolution:"
    settings = (
        Path(tasks.__file__).parent / "minerva_math" / "minerva_math_algebra.yaml"
    ).read_text()
    assert f'- "{task.stop[0]}"' in settings
    # without a field of its own the answer is read from the solution
    assert task.assess(sample, "Final Answer: The final answer is $0.5$. I hope").correct


def test_only_the_form_with_examples_shows_some() -> None:
    with pytest.raises(ValueError, match="form=boxed has 0 worked examples"):
        Math500(None, "boxed", 4, "")

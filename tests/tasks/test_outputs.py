"""Outputs made anywhere, graded from a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from dllm.errors import ConfigError
from dllm.tasks.base import Grade
from dllm.tasks.listops import ListOperations
from dllm.tasks.outputs import Tally, grade_file


TASK = ListOperations(kinds=["copy"])
MIXED = ListOperations(kinds=["copy", "reverse"])
(FIRST, SECOND) = TASK.samples("test", 2)


def written(folder: Path, lines: list[Any]) -> Path:
    path = folder / "outputs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_samples_are_named_by_index_or_id(tmp_path: Path) -> None:
    lines = [{"index": 1, "output": SECOND.answer}, {"id": FIRST.id, "output": "no"}]
    grades, without = grade_file(TASK, written(tmp_path, lines))
    assert grades == {"copy": [Grade(correct=True), Grade(correct=False)]}
    assert without == 198


def test_an_index_of_several_kinds_needs_its_task(tmp_path: Path) -> None:
    sample = next(s for s in MIXED.samples("test") if s.task == "reverse")
    line = {"index": 0, "output": sample.answer}
    grades, _ = grade_file(MIXED, written(tmp_path, [{**line, "task": "reverse"}]))
    assert grades == {"reverse": [Grade(correct=True)]}
    with pytest.raises(ConfigError, match="needs its task"):
        grade_file(MIXED, written(tmp_path, [line]))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"index": 0}], "entry 1 has no text under output"),
        ([{"output": "A"}], "entry 1 has neither id nor index"),
        ([{"index": 200, "output": "A"}], "200 is no sample"),
        ([{"index": [0], "output": "A"}], "is no sample"),
        ([{"index": True, "output": "A"}], "True is no sample"),
        ([{"index": 0, "task": ["copy"], "output": "A"}], "is no sample"),
        ([{"index": {"a": 0}, "task": "copy", "output": "A"}], "is no sample"),
        ([{"index": 0, "output": "A"}] * 2, "entry 2: a second output of 0"),
        ([{"index": 0, "output": "A"}, {"id": FIRST.id, "output": "A"}], "entry 2: a second"),
        ([], "holds no output"),
    ],
)
def test_wrong_lines(tmp_path: Path, lines: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        grade_file(TASK, written(tmp_path, lines))


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"outputs=.*No such file"):
        grade_file(TASK, tmp_path / "nowhere.jsonl")
    path = tmp_path / "text.jsonl"
    path.write_text('{"index": 0, "output": "A"}\nnonsense')
    with pytest.raises(ConfigError, match="line 2 is no JSON"):
        grade_file(TASK, path)
    for nested in ("[", '{"output": '):
        path.write_text(nested * 100_000)
        with pytest.raises(ConfigError, match="is no JSON"):
            grade_file(TASK, path)


def test_a_tally_is_counted_by_hand() -> None:
    grades = [
        Grade(correct=True, scores={"strict": 1.0}),
        Grade(correct=True, scores={"strict": 0.0}),
        Grade(correct=False, unparsed=True, scores={"strict": 0.0}),
        Grade(correct=False, scores={"strict": 0.0}),
    ]
    assert Tally.of(grades).line() == (
        "2/4 correct, accuracy 0.5000 [0.1500, 0.8500], 1 without an answer that can be read, "
        "strict 0.2500"
    )

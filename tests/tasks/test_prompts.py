"""Own prompts: fields, chats, grades, and one line for what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from dllm.errors import ConfigError
from dllm.tasks.prompts import Prompts


def task(tmp_path: Path, *rows: Any) -> Prompts:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return Prompts(str(path), None)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "1 + 1"},
]


def test_an_id_does_not_depend_on_the_line(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}, {"messages": CHAT}]
    ids = [[s.id for s in task(tmp_path, *r).samples("test")] for r in (rows, rows[::-1])]
    assert sorted(ids[0]) == sorted(ids[1]) and len(set(ids[0])) == 4
    assert ids[0][0] == ids[1][1] and ids[0][1] == ids[1][2] and ids[0][3] == ids[1][0]


def test_a_text_and_a_chat(tmp_path: Path) -> None:
    text, chat = task(tmp_path, {"prompt": "Hi"}, {"messages": CHAT, "id": 7}).samples("test")
    assert text.messages == [{"role": "user", "content": "Hi"}]
    assert chat.messages == CHAT and chat.id == "7"
    assert Prompts.of(["Hi", CHAT])[1].messages == CHAT
    (one,) = Prompts(None, "Hi").samples("test")
    assert one == text == Prompts.of(["Hi"])[0]


def test_equal_prompts_are_two_samples_and_limit_none_is_all(tmp_path: Path) -> None:
    found = task(tmp_path, {"prompt": "Hi"}, {"prompt": "Hi"}, {"prompt": "Ho"})
    assert len({s.id for s in found.samples("test", None)}) == 3
    assert len(found.samples("test", 2)) == 2 and len(found.samples("test", 99)) == 3


@pytest.mark.parametrize(
    ("grade", "answer", "right", "wrong"),
    [
        ("exact", "Paris", " Paris\n", "Paris."),
        ("contains", "Paris", "It is Paris.", "It is paris."),
        ("number", "1,234.0", "First 7, then 1234", "1234, then 7"),
        ("number", "-5", "so -5.0 it is", "no number"),
    ],
)
def test_grades(grade: str, answer: str, right: str, wrong: str, tmp_path: Path) -> None:
    found = task(tmp_path, {"prompt": "?", "answer": answer, "grade": grade})
    (sample,) = found.samples("test")
    assert found.assess(sample, right).correct is True
    assert found.assess(sample, wrong).correct is False


def test_nothing_to_grade_by(tmp_path: Path) -> None:
    found = task(tmp_path, {"prompt": "?"})
    assert found.assess(found.samples("test")[0], "x").correct is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "entry 1 must have one of the fields prompt and messages"),
        ({"prompt": "a", "messages": CHAT}, "must have one of the fields"),
        ({"prompt": 5}, "is no message with role and content"),
        ({"prompt": "a", "question": "b"}, "unknown field question"),
        ({"prompt": "a", "answer": "b", "grade": "fuzzy"}, "grade='fuzzy' is not one of exact"),
        ({"prompt": "a", "answer": "b", "grade": "number"}, "answer='b' holds no number"),
        ({"prompt": "a", "grade": "exact"}, "grade='exact' needs an answer"),
        ({"prompt": "a", "answer": ["x"]}, "is no text and no number"),
        ({"prompt": "a", "answer": True}, "answer=True is no text"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": "Hi"}, "messages must be a list"),
        ({"messages": ["Hi"]}, "'Hi' is no message"),
        ({"messages": CHAT[:3]}, "the user last; got system, user, assistant"),
        ({"messages": CHAT[:1]}, "the user last; got system"),
        ({"messages": [CHAT[1], CHAT[1]]}, "take turns"),
        ({"prompt": "\ud800"}, "lone surrogate"),
    ],
)
def test_a_wrong_entry(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        task(tmp_path, row).samples("test")
    assert "prompts.jsonl" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.path=.*absent"):
        Prompts(str(tmp_path / "absent"), None).samples("test")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="holds no prompt"):
        Prompts(str(tmp_path / "empty"), None).samples("test")
    with pytest.raises(ConfigError, match="two entries have the same id"):
        task(tmp_path, {"prompt": "a", "id": 1}, {"prompt": "b", "id": "1"}).samples("test")
    for path, prompt, given in [(None, None, "neither is"), ("x", "y", "both are")]:
        with pytest.raises(ConfigError, match=f"task.path and task.prompt: {given} given"):
            Prompts(path, prompt)

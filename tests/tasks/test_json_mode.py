"""Requests for JSON: the chat, and what counts as the reference's JSON."""

import json
from pathlib import Path

import pytest

from dllm.tasks.base import Sample
from dllm.tasks.json_mode import JsonMode


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}


@pytest.fixture
def asked(tmp_path: Path) -> tuple[JsonMode, Sample]:
    row = {"instance_id": "jsonschema_0", "input": "One a, one b.", "output": '{"a": 1, "b": "x"}'}
    (tmp_path / "test.jsonl").write_text(json.dumps({**row, "schema": json.dumps(SCHEMA)}))
    task = JsonMode(str(tmp_path))
    (sample,) = task.samples("test")
    return task, sample


def test_the_schema_is_told_and_the_answer_begun(asked: tuple[JsonMode, Sample]) -> None:
    _, sample = asked
    system, user = sample.messages
    assert system["role"] == "system" and json.dumps(SCHEMA) in system["content"]
    assert user["content"] == "One a, one b." and sample.prefix == "```json\n"
    assert sample.meta["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("text", "correct", "unparsed", "scores"),
    [
        ('{"a": 1, "b": "x"}', True, False, {"json": 1, "schema": 1}),
        ('{\n "a": 1,"b":"x"}\n```\nThat is it.', True, False, {"json": 1, "schema": 1}),
        ('{"b": "x", "a": 1}', False, False, {"json": 1, "schema": 1}),
        ('{"a": "1", "b": "x"}', False, False, {"json": 1, "schema": 0}),
        ('{"a": 1', False, True, {"json": 0, "schema": 0}),
        ("", False, True, {"json": 0, "schema": 0}),
    ],
)
def test_grades(
    asked: tuple[JsonMode, Sample],
    text: str,
    correct: bool,
    unparsed: bool,
    scores: dict[str, float],
) -> None:
    task, sample = asked
    grade = task.assess(sample, task.answer_in(text))
    assert (grade.correct, grade.unparsed, grade.scores) == (correct, unparsed, scores)

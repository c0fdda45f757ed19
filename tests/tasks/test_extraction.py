"""JSON extraction: the answer states what the sentence says, in the schema's order and types."""

import json
from random import Random

import pytest

from dllm.tasks.base import Sample
from dllm.tasks.extraction import TYPES, JsonExtraction, json_schema


TASK = JsonExtraction()


def test_answers_follow_schema_and_sentence() -> None:
    rng, counts, extra = Random(0), set(), 0
    for _ in range(500):
        sample = TASK.draw("json", rng)
        value, schema = json.loads(sample.answer), sample.meta["schema"]
        assert list(value) == schema["required"] == list(schema["properties"])
        assert sample.prompt.startswith("json {" + ",".join(f"{k}:{TYPES[k]}" for k in value))
        sentence = sample.prompt.split("}: ")[1]
        for key, entry in value.items():
            assert str(entry) in sentence
            python_type = {"string": str, "integer": int}[schema["properties"][key]["type"]]
            assert type(entry) is python_type
        counts.add(len(value))
        extra += sentence.count(" and ") + 1 > len(set(value) - {"name"})
    assert counts == {2, 3, 4}
    assert extra > 50  # facts nobody asked for


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"name":"Mia","age":34}', True),
        (' {"age": 34, "name": "Mia"} ', True),
        ('{"name":"Mia","age":"34"}', False),
        ('{"name":"Mia","age":34.0}', False),
        ('{"name":"Mia"}', False),
        ('{"name":"Mia","age":34', False),
        ('{"name":"Mia","age":34}}', False),
        ("", False),
    ],
)
def test_grading_is_equality_of_the_parsed_value(text, right) -> None:
    assert TASK.grade(Sample.of("json", "p", '{"name":"Mia","age":34}'), text) is right


def test_the_schema_is_closed() -> None:
    assert json_schema(["pet", "age"]) == {
        "type": "object",
        "properties": {"pet": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["pet", "age"],
        "additionalProperties": False,
    }

"""JSON extraction: the answer states what the sentence says, in the schema's order and types."""

import json
from random import Random
from typing import Any

import pytest
from jsonschema import validate

from dllm.tasks.base import Sample
from dllm.tasks.extraction import GROUPS, TYPES, JsonExtraction, json_schema


TASK = JsonExtraction()


def leaves(value: dict[str, Any]) -> dict[str, Any]:
    """The fields, those of nested objects too."""
    nested = [leaves(entry) for entry in value.values() if isinstance(entry, dict)]
    own = {key: entry for key, entry in value.items() if not isinstance(entry, dict)}
    return own | {key: entry for part in nested for key, entry in part.items()}


def test_answers_follow_schema_and_sentences() -> None:
    rng, counts, people, extra, nested = Random(0), set(), set(), 0, 0
    for _ in range(500):
        sample = TASK.draw("json", rng)
        value, schema = json.loads(sample.answer), sample.meta["schema"]
        validate(value, schema)
        records = value if isinstance(value, list) else [value]
        schema = schema.get("items", schema)
        *sentences, end = sample.prompt.split("}: " if value is records[0] else "}]: ")[1].split(
            "."
        )
        assert len(sentences) == len(records) and not end
        for record, sentence in zip(records, sentences, strict=True):
            assert list(record) == schema["required"] == list(schema["properties"])
            for key, entry in leaves(record).items():
                assert str(entry) in sentence
                assert type(entry) is {"string": str, "integer": int}[TYPES[key]]
            nested += record.keys() & GROUPS.keys() != set()
            counts.add(len(leaves(record)))
            extra += sentence.count(" and ") + 1 > len(leaves(record).keys() - {"name"})
        people.add(len(records))
    assert counts == {2, 3, 4, 5, 6} and people == {1, 2, 3}
    assert extra > 20  # facts nobody asked for
    assert nested > 50


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
    assert json_schema({"pet": (), "age": ()}) == {
        "type": "object",
        "properties": {"pet": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["pet", "age"],
        "additionalProperties": False,
    }

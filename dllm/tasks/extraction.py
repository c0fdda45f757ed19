"""Extraction of stated facts into compact JSON that follows a schema given in the prompt."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from dllm import judging
from dllm.tasks.base import GeneratedTask, Grade, Sample
from dllm.tasks.jsonschema_bench import follows
from dllm.tasks.words import CITIES, JOBS, NAMES, PETS


TYPES = {
    "name": "string",
    "age": "integer",
    "city": "string",
    "job": "string",
    "pet": "string",
    "room": "integer",
}

# How a fact is put into the sentence after the name; one is drawn per fact.
CLAUSES = {
    "age": ("is {age} years old", "is {age}", "turned {age}"),
    "city": ("lives in {city}", "is from {city}", "moved to {city}"),
    "job": ("works as a {job}", "is a {job}", "became a {job}"),
    "pet": ("has a {pet}", "feeds a {pet}", "owns a {pet}"),
    "room": ("sits in room {room}", "has room {room}", "took room {room}"),
}


MOST_FACTS = 9  # of all people together, so that a prompt stays below 100 tokens

GROUPS = {"lives": ("city", "pet"), "works": ("job", "room")}
"""Key of a nested object -> the fields it holds."""


class JsonExtraction(GeneratedTask):
    """One record of two to `max_fields` fields, or an array with one for each of several people.

    Fields come in the schema's order; two that belong together may form an object of their own.
    What is said of a single person may be one fact more than asked for.
    """

    def __init__(self, max_fields: int = 6, max_people: int = 3, nested: bool = True) -> None:
        if not 2 <= max_fields <= len(TYPES):
            raise ValueError(f"max_fields={max_fields} is outside 2..{len(TYPES)}")
        if not 1 <= max_people <= 4:
            raise ValueError(f"max_people={max_people} is outside 1..4")
        self.kinds = ("json",)
        self.max_fields, self.max_people, self.nested = max_fields, max_people, nested

    def draw(self, kind: str, rng: Random) -> Sample:
        people = rng.randint(1, self.max_people)
        most = max(2, min(self.max_fields, MOST_FACTS // people))
        fields = rng.sample(list(TYPES), rng.randint(2, most))
        extra = []
        if people == 1 and len(fields) < 4 and rng.random() < 0.3:  # a fact nobody asked for
            extra = [rng.choice([f for f in CLAUSES if f not in fields])]
        everybody = [_person(name, rng) for name in rng.sample(NAMES, people)]
        stated = [f for f in fields if f != "name"] + extra
        text = ". ".join(_sentence(facts, stated, rng) for facts in everybody)
        layout = _layout(fields, rng) if self.nested else dict.fromkeys(fields, ())
        records = [_record(layout, facts) for facts in everybody]
        schema = f"{{{_abbreviated(layout)}}}"
        return Sample.of(
            kind,
            f"json {schema if people == 1 else f'[{schema}]'}: {text}.",
            json.dumps(records[0] if people == 1 else records, separators=(",", ":")),
            schema=json_schema(layout) if people == 1 else _array(json_schema(layout)),
        )

    def assess(self, sample: Sample, text: str) -> Grade:
        """Besides the grade, whether the text is JSON and whether its schema accepts it."""
        try:
            given = judging.read_json(text)
        except ValueError:
            return Grade(correct=False, scores={"json": 0.0, "schema": 0.0})
        valid = follows(given, sample.meta["schema"])
        scores = {"json": 1.0, "schema": float(valid)}
        return Grade(correct=self.grade(sample, text), scores=scores)

    def grade(self, sample: Sample, text: str) -> bool:
        try:
            given = judging.read_json(text)
        except ValueError:
            return False
        # through dumps, because Python's 34 == 34.0 == "equal" while the schema says integer
        return json.dumps(given, sort_keys=True) == json.dumps(
            json.loads(sample.answer), sort_keys=True
        )


Layout = dict[str, tuple[str, ...]]
"""Key -> the fields of the object there, () = the field itself."""


def _person(name: str, rng: Random) -> dict[str, Any]:
    return {
        "name": name,
        "age": rng.randint(10, 99),
        "city": rng.choice(CITIES),
        "job": rng.choice(JOBS),
        "pet": rng.choice(PETS),
        "room": rng.randint(10, 99),
    }


def _sentence(facts: dict[str, Any], stated: list[str], rng: Random) -> str:
    order = rng.sample(stated, len(stated))
    return f"{facts['name']} {' and '.join(rng.choice(CLAUSES[f]).format(**facts) for f in order)}"


def _layout(fields: list[str], rng: Random) -> Layout:
    layout: Layout = {field: () for field in fields}
    for key, members in GROUPS.items():
        if set(members) <= set(fields) and rng.random() < 0.5:
            for field in members:
                del layout[field]
            layout[key] = members
    return layout


def _record(layout: Layout, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        k: {f: facts[f] for f in members} if members else facts[k] for k, members in layout.items()
    }


def _abbreviated(layout: Layout) -> str:
    return ",".join(
        f"{k}:{{{_abbreviated(dict.fromkeys(members, ()))}}}" if members else f"{k}:{TYPES[k]}"
        for k, members in layout.items()
    )


def json_schema(layout: Layout) -> dict[str, Any]:
    """The JSON Schema of a record, which the prompt abbreviates."""
    return {
        "type": "object",
        "properties": {
            k: json_schema(dict.fromkeys(members, ())) if members else {"type": TYPES[k]}
            for k, members in layout.items()
        },
        "required": list(layout),
        "additionalProperties": False,
    }


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}

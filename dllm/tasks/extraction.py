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


class JsonExtraction(GeneratedTask):
    """Two to `max_fields` fields in the schema's order; the sentence may state one fact more."""

    def __init__(self, max_fields: int = 4) -> None:
        if not 2 <= max_fields <= 4:
            raise ValueError(f"max_fields={max_fields} is outside 2..4")
        self.kinds = ("json",)
        self.max_fields = max_fields

    def draw(self, kind: str, rng: Random) -> Sample:
        facts = {
            "name": rng.choice(NAMES),
            "age": rng.randint(10, 99),
            "city": rng.choice(CITIES),
            "job": rng.choice(JOBS),
            "pet": rng.choice(PETS),
            "room": rng.randint(10, 99),
        }
        fields = rng.sample(list(TYPES), rng.randint(2, self.max_fields))
        stated = [f for f in fields if f != "name"]
        if len(stated) < 3 and rng.random() < 0.3:  # a fact that nobody asked for
            stated.append(rng.choice([f for f in CLAUSES if f not in stated]))
        rng.shuffle(stated)
        clauses = [rng.choice(CLAUSES[f]).format(**facts) for f in stated]
        schema = ",".join(f"{f}:{TYPES[f]}" for f in fields)
        sentence = f"{facts['name']} {' and '.join(clauses)}"
        value = {f: facts[f] for f in fields}
        return Sample.of(
            kind,
            f"json {{{schema}}}: {sentence}.",
            json.dumps(value, separators=(",", ":")),
            schema=json_schema(fields),
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


def json_schema(fields: list[str]) -> dict[str, Any]:
    """The JSON Schema that the prompt abbreviates."""
    return {
        "type": "object",
        "properties": {f: {"type": TYPES[f]} for f in fields},
        "required": list(fields),
        "additionalProperties": False,
    }

"""Random small schemas: what is derived is valid, what is refused as unsatisfiable is, and where
every value has one way to be written, all that are valid are accepted."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from derivations import sentence
from jsonschema import Draft202012Validator, FormatChecker

from dllm.constraints.checker import Checker, Verdict
from dllm.constraints.errors import EmptyLanguage, GrammarError
from dllm.constraints.grammar import Grammar
from dllm.constraints.json_schema.translate import read_json_schema


NAMES = ["a", "ab", "b", "x"]
SCALARS = [None, True, False, 0, 1, 2, 3, -1, 5, 7, "", "a", "b", "ab", "aa", "abc", "x"]
VALUES: list[Any] = [
    *SCALARS,
    *(0.5, 1.5, 0.25, [], [1], [1, 2], [1, 1], ["a"], ["a", 1], [None], [1, 2, 3], [[1]]),
    *({}, {"a": 1}, {"b": 1}, {"a": 1, "b": 2}, {"a": "a"}, {"x": 1}, {"ab": 1}, {"a": None}),
    *({"a": 1, "x": 1}, {"a": [1]}, {"a": {"a": 1}}),
]
TYPES: list[Any] = ["object", "array", "string", "number", "integer", "null", "boolean"]
MIXED: list[Any] = [["string", "integer"], ["object", "null"], ["array", "number"]]
NUMBERS = [0, 1, 2, 3, -1, 1.5, 0.5, 5]
COUNTS = [0, 1, 1, 2, 3]
PATTERNS = ["^a", "b$", "^[ab]*$", "x", "^.$"]
FORMATS = ["date", "ipv4", "uuid", "nosuch"]
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
LENGTHS = ("minLength", "maxLength")
SIZES = ("minItems", "maxItems", "minContains", "maxContains")


def drawn(rng: Random, depth: int) -> Any:
    """A schema of up to three keywords, nested up to `depth`."""
    if rng.random() < 0.06:
        return rng.random() < 0.5
    schema: dict[str, Any] = {}
    if rng.random() < 0.65:
        schema["type"] = rng.choice([*TYPES, *MIXED])

    def inner() -> Any:
        return drawn(rng, depth - 1)

    def some() -> list[Any]:
        return [inner() for _ in range(rng.choice([1, 2, 2, 3]))]

    def below(names: list[str]) -> dict[str, Any]:
        return {name: inner() for name in rng.sample(names, rng.choice([1, 2]))}

    makers: dict[str, Callable[[], Any]] = {
        **dict.fromkeys(BOUNDS, lambda: rng.choice(NUMBERS)),
        **dict.fromkeys((*LENGTHS, *SIZES), lambda: rng.choice(COUNTS)),
        **dict.fromkeys(("minProperties", "maxProperties"), lambda: rng.choice(COUNTS)),
        "multipleOf": lambda: rng.choice([1, 2, 3, 0.5, 0.1, 0.01, 2.5]),
        "pattern": lambda: rng.choice(PATTERNS),
        "format": lambda: rng.choice(FORMATS),
        "enum": lambda: [rng.choice(VALUES) for _ in range(rng.choice([1, 2, 3]))],
        "const": lambda: rng.choice(VALUES),
        "required": lambda: rng.sample(NAMES, rng.choice([1, 1, 2])),
        "uniqueItems": lambda: True,
        "dependentRequired": lambda: {rng.choice(NAMES): rng.sample(NAMES, 1)},
    }
    if depth:
        makers |= {
            **dict.fromkeys(("items", "contains", "additionalProperties", "not"), inner),
            **dict.fromkeys(("if", "then", "else"), inner),
            **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), some),
            "propertyNames": lambda: drawn(rng, 0),
            "properties": lambda: below(NAMES),
            "patternProperties": lambda: below(PATTERNS),
            "dependentSchemas": lambda: below(NAMES),
        }
    for keyword in rng.sample(sorted(makers), rng.choice([1, 2, 2, 3])):
        schema[keyword] = makers[keyword]()
    return schema


def plain(rng: Random, depth: int) -> Any:
    """A schema of those of which nothing is left out: one type, whole numbers, members known by
    name, in the order of the alphabet."""
    kind = rng.choice(TYPES[: 7 if depth else 0] or ["string", "integer", "null", "boolean"])
    schema: dict[str, Any] = {"type": "integer" if kind == "number" else kind}
    if depth and rng.random() < 0.3:
        options = [plain(rng, depth - 1) for _ in range(2)]
        return {"allOf": [options[0], options[0]]} if rng.random() < 0.3 else {"anyOf": options}
    if rng.random() < 0.15:
        return {"enum": rng.sample(SCALARS, 3)}
    if kind in ("number", "integer"):
        bounds = rng.sample(BOUNDS, rng.choice([0, 1, 2]))
        return schema | {bound: rng.choice(NUMBERS) for bound in bounds}
    if kind == "string":
        bounds = rng.sample(LENGTHS, rng.choice([0, 1, 2]))
        schema |= {bound: rng.choice(COUNTS) for bound in bounds}
        return schema | ({"pattern": rng.choice(PATTERNS)} if rng.random() < 0.4 else {})
    if kind == "array":
        bounds = rng.sample(SIZES[:2], rng.choice([0, 1, 2]))
        schema |= {bound: rng.choice(COUNTS) for bound in bounds}
        if rng.random() < 0.4:
            schema["prefixItems"] = [plain(rng, depth - 1) for _ in range(rng.choice([1, 2]))]
        return schema | ({"items": plain(rng, depth - 1)} if rng.random() < 0.6 else {})
    if kind == "object":
        named = sorted(rng.sample(NAMES, rng.choice([1, 2, 3])))
        schema["properties"] = {name: plain(rng, depth - 1) for name in named}
        schema["additionalProperties"] = False
        wanted = rng.sample(named, rng.choice([0, 1]))
        schema |= {"required": wanted} if wanted else {}
        if len(named) > 1 and rng.random() < 0.3:
            schema["dependentRequired"] = {named[0]: [named[1]]}
    return schema


def accepted(grammar: Grammar) -> list[bool]:
    """Which of `VALUES` the grammar accepts."""
    checker = Checker.of(grammar, 8)
    texts = [json.dumps(value).encode() for value in VALUES]
    return [checker.completable([text], True) is Verdict.YES for text in texts]


@pytest.mark.parametrize("part", range(2))
def test_nothing_invalid_is_derived(part: int) -> None:
    judged = FormatChecker(FORMATS[:3])
    used = 0
    for seed in range(part, 240, 2):
        rng = Random(seed)
        schema = drawn(rng, 2)
        try:
            grammar = read_json_schema(schema)
        except EmptyLanguage:
            assert not any(map(Draft202012Validator(schema).is_valid, VALUES)), (seed, schema)
            continue
        except GrammarError:
            continue
        used += 1
        validator = Draft202012Validator(schema, format_checker=judged)
        for value, yes in zip(VALUES, accepted(grammar), strict=True):
            assert not yes or validator.is_valid(value), (seed, schema, value)
        for _ in range(8):
            text = sentence(grammar, rng)
            assert validator.is_valid(json.loads(text)), (seed, schema, text)
    assert used > 30


def test_nothing_valid_is_left_out_where_a_value_has_one_way_to_be_written() -> None:
    for seed in range(120):
        schema = plain(Random(seed), 2)
        expected = list(map(Draft202012Validator(schema).is_valid, VALUES))
        try:
            found = accepted(read_json_schema(schema))
        except EmptyLanguage:
            found = [False] * len(VALUES)
        assert found == expected, (seed, schema)

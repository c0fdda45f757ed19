"""Schemas as grammars: what is derived is valid, what is valid and plain can be derived."""

import json
import random
from typing import Any

import pytest
from derivations import sentence
from jsonschema.validators import validator_for

from dllm.clock import NEVER
from dllm.constraints.checker import Checker, Verdict
from dllm.constraints.errors import EmptyLanguage, GrammarError
from dllm.constraints.json_schema import strings
from dllm.constraints.json_schema.translate import read_json_schema
from dllm.constraints.languages import JsonSchema


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/definitions/node",
    "definitions": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "children": {"type": "array", "items": {"$ref": "#/definitions/node"}},
            },
            "required": ["children"],
        }
    },
}
NEWEST = "https://json-schema.org/draft/2020-12/schema"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
SCHEMAS: list[tuple[Any, list[Any], list[Any]]] = [
    (True, [1, "a", None, [], {}, {"a": [1, {"b": "c"}]}, ["a", 1, "b"]], []),
    (PERSON, [{"name": "Ana"}, {"name": "", "age": 3}], [{}, {"name": 1}, {"name": "a", "x": 1}]),
    (TREE, [{"children": [{"children": []}, {"value": 1, "children": []}]}], [{"value": 1}]),
    ({"type": "integer", "minimum": -12, "maximum": 345}, [-12, 0, 7, 99, 345], [-13, 346, 1.5]),
    ({"type": "integer", "minimum": 7}, [7, 70, 123456], [6, -7]),
    ({"type": "integer", "maximum": -7}, [-7, -70], [-6, 7]),
    ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, [0, 0.5], [1, -0.5]),
    ({"type": "number", "minimum": 0.25, "maximum": 0.75}, [0.3, 0.7], [0, 1, 0.8]),
    ({"type": "number", "minimum": -3, "maximum": 2.5}, [-2.5, 1.5, -3, 2], [2.6, -3.5]),
    ({"type": "integer", "multipleOf": 7, "minimum": 1}, [7, 49], [1, 8, 0]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "é€x"], ["a", "abcd"]),
    ({"type": "string", "pattern": "^[a-c]+$"}, ["abc"], ["", "abd"]),
    ({"type": "string", "pattern": "^[[&&b]$"}, ["[", "&", "b"], ["[b", "a"]),
    ({"type": "string", "pattern": "b"}, ["abc", "b"], ["", "ac"]),
    ({"type": "string", "pattern": '^"x\\\\$'}, ['"x\\'], ["x"]),
    (
        {"type": "string", "format": "date"},
        ["2024-02-28", "2024-12-31"],
        ["2024-13-01", "0000-01-01", "x"],
    ),
    ({"enum": ["a", 1, None, [2]]}, ["a", 1, None, [2]], ["b", 2]),
    ({"type": "string", "enum": ["a", 1]}, ["a"], [1]),
    ({"const": 5}, [5], [6, "5"]),
    (
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        [[True], [True, False]],
        [[], [True] * 3],
    ),
    (
        {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "string"}},
        [[None], [None, "a", "b"]],
        [["a"]],
    ),
    (
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        [[], ["a"]],
        [["a", "a"]],
    ),
    ({"type": "object", "minProperties": 1}, [{"a": 1}], [{}]),
    ({"type": "string", "minLength": 2.0, "maxLength": 2.0}, ["ab"], ["a", "abc"]),
    ({"type": "array", "minItems": 1.0, "maxItems": 1.0}, [[1]], [[], [1, 2]]),
    ({"type": "object", "minProperties": 1.0, "maxProperties": 1.0}, [{"a": 1}], [{}]),
    (
        {"type": "array", "contains": {"const": 1}, "minContains": 2.0, "maxContains": 2.0},
        [[1, 1]],
        [[1], [1, 1, 1]],
    ),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "maxLength": 1.0}}}, ["a"], ["ab"]),
    ({"type": "object", "maxProperties": 1}, [{}, {"a": 1}], [{"a": 1, "b": 2}]),
    (
        {
            "type": "object",
            "patternProperties": {"^x": {"type": "integer"}},
            "additionalProperties": False,
        },
        [{}, {"xa": 1, "x": 2}],
        [{"a": 1}, {"x": "a"}],
    ),
    (
        {"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
        [{"a": 1, "b": "c"}, {"b": "c"}],
        [{"a": "c"}, {"b": 1}],
    ),
    ({"allOf": [PERSON, {"required": ["age"]}]}, [{"name": "a", "age": 1}], [{"name": "a"}]),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, ["a", None], [1]),
    ({"allOf": [{"enum": [1, [True], "a"]}, {"enum": [True, [1], "a"]}]}, ["a"], [1, True]),
    ({"oneOf": [{"enum": [1, "a"]}, {"enum": [True, "a"]}]}, [1, True], ["a"]),
    (
        {
            "properties": {name: {"type": "null"} for name in "abc"},
            "allOf": [{"dependencies": {"a": ["b"]}}, {"dependencies": {"a": ["c"]}}],
        },
        [{}, {"a": None, "b": None, "c": None}],
        [{"a": None}, {"a": None, "c": None}],
    ),
    *(
        (
            {"$schema": draft, "type": "null", "$ref": "#/$defs/a", "$defs": {"a": a}},
            valid,
            invalid,
        )
        for a in ({"type": ["boolean", "null"]},)
        for draft, valid, invalid in (
            (DRAFT_7, [True, None], [1]),
            (DRAFT_4, [True, None], [1]),
            (NEWEST, [None], [True]),
        )
    ),
    (
        # Siblings that are not read neither tell branches apart.
        {
            "$schema": DRAFT_7,
            "definitions": {"a": {"type": ["boolean", "null"]}},
            "not": {"$ref": "#/definitions/a", "type": "integer"},
        },
        [],
        [],
    ),
    (
        {"$schema": DRAFT_7, "items": [{"type": "null"}], "additionalItems": False},
        [[None], []],
        [[1], [None, 1]],
    ),
    ({"$schema": DRAFT_4, "minimum": 3, "exclusiveMinimum": True}, [4], [3]),
    (
        # What it is about stands elsewhere in the document.
        {
            "properties": {"a": {"enum": [[1], [2]], "items": {"$ref": "#/$defs/b"}}},
            "required": ["a"],
            "$defs": {"b": {"minimum": 2}},
        },
        [{"a": [2]}],
        [{"a": [1]}],
    ),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        [{"a": None}, {"b": None}],
        [{}, {"a": None, "b": None}],
    ),
    ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 5}]}, [4, -1], [5, 6]),
    (
        {"type": "string", "oneOf": [{"maxLength": 1}, {"minLength": 3, "maxLength": 4}]},
        ["", "a", "abc"],
        ["ab"],
    ),
    (
        {
            "oneOf": [
                {"type": "array", "items": {"enum": ["a", "b"]}},
                {"type": "array", "items": {"enum": ["c"]}},
            ]
        },
        [["a", "b"], ["c"]],
        [[], ["a", "c"]],
    ),
    ({"oneOf": [{"enum": [1, 2]}, {"enum": [2, "x"]}]}, [1, "x"], [2]),
    ({"type": "object", "dependencies": {"a": ["b"]}}, [{"b": 1}], [{"a": 1}]),
    (
        {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "null"}}},
        [None],
        [1],
    ),
    ({"not": {"type": "object"}, "type": ["object", "null"]}, [None], [{}]),
    ({"not": {"const": 1}}, ["a", None, True, {}], [1, 1.0]),
    ({"type": "string", "not": {"enum": ["a", 1]}}, ["b", ""], ["a"]),
    ({"type": "string", "not": {"pattern": "[$]"}}, ["b"], ["a$"]),
    ({"not": {"required": ["a", "b"]}}, [{}, {"a": 1}, {"b": 1}], [{"a": 1, "b": 1}]),
    (
        {"required": ["c"], "not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
        [{"c": 1}],
        [{"a": 1, "c": 1}, {"b": 1, "c": 1}],
    ),
    (
        {
            "properties": {"a": {"enum": [1, 2]}},
            "required": ["a"],
            "not": {"properties": {"a": {"const": 1}}},
        },
        [{"a": 2}],
        [{"a": 1}],
    ),
    (
        {
            "properties": {"a": {"enum": [1, 2]}, "b": {"type": "null"}},
            "required": ["a"],
            "if": {"properties": {"a": {"const": 1}}},
            "then": {"required": ["b"]},
            "else": {"properties": {"b": False}},
        },
        [{"a": 1, "b": None}, {"a": 2}],
        [{"a": 1}, {"a": 2, "b": None}],
    ),
    (
        {
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "dependencies": {"a": {"required": ["b"]}},
        },
        [{}, {"b": None}, {"a": None, "b": None}],
        [{"a": None}],
    ),
    (
        {"properties": {"a": {"type": "null"}}, "dependentSchemas": {"a": {"maxProperties": 1}}},
        [{"a": None}, {"b": 1, "c": 2}],
        [{"a": None, "b": 1}],
    ),
    (
        {"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 5}},
        [[5], [6, 1]],
        [[], [4]],
    ),
    (
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 2},
        [["a", "b"], ["c", "b"]],
        [["a"], ["a", "a"]],
    ),
    (
        {
            "type": "object",
            "oneOf": [
                {"properties": {"a": {"type": "integer"}}},
                {"properties": {"b": {"type": "integer"}}},
            ],
        },
        [{"a": 1, "b": "x"}, {"b": 1, "a": "x"}],
        [{}, {"a": 1, "b": 1}],
    ),
    # Names of members, declared ones included.
    (
        {"type": "object", "properties": {"ab": {}, "c": {}}, "propertyNames": {"maxLength": 1}},
        [{}, {"c": 1}, {"d": 1}],
        [{"ab": 1}, {"de": 1}],
    ),
    (
        {"type": "object", "propertyNames": {"anyOf": [{"const": "a"}, {"pattern": "^x"}]}},
        [{}, {"a": 1, "xy": 2}],
        [{"b": 1}],
    ),
    (
        {
            "type": "object",
            "required": ["a"],
            "propertyNames": {"$ref": "#/$defs/n"},
            "$defs": {"n": {"not": {"enum": ["b", "c"]}}},
        },
        [{"a": 1}, {"a": 1, "d": 2}],
        [{"a": 1, "b": 2}],
    ),
    (
        {
            "type": "object",
            "allOf": [{"propertyNames": {"minLength": 2}}, {"propertyNames": {"pattern": "^a"}}],
        },
        [{"ab": 1}],
        [{"a": 1}, {"bc": 1}],
    ),
    ({"type": "object", "propertyNames": {"type": "integer"}}, [{}], [{"a": 1}]),
    ({"type": "object", "propertyNames": {"format": "date"}}, [{"2024-01-02": 1}], [{"a": 1}]),
    # Several patterns, formats, values beside them.
    (
        {"type": "string", "allOf": [{"pattern": "^a"}, {"pattern": "b$"}]},
        ["ab", "axb"],
        ["a", "b"],
    ),
    (
        {"allOf": [{"type": "string", "format": "hostname"}, {"format": "email"}, {"format": "x"}]},
        [],
        [],
    ),
    (
        {"type": "string", "allOf": [{"format": "hostname"}, {"format": "ipv4"}]},
        ["10.0.0.1"],
        ["10.0.0.256", "a"],
    ),
    ({"enum": ["10.0.0.1", "x", 5], "format": "ipv4"}, ["10.0.0.1", 5], ["x"]),
    ({"enum": ["abc", "b", 5], "pattern": "^a", "minLength": 2}, ["abc", 5], ["b"]),
    ({"const": "a", "pattern": "(?=a)"}, ["a"], []),
    ({"const": 1, "enum": [1, 2]}, [1], [2]),
    ({"$schema": DRAFT_7, "enum": [[1], [2]], "contains": {"const": 1}}, [[1]], [[2]]),
    (
        {"$schema": DRAFT_4, "enum": [3, 4], "minimum": 3, "exclusiveMinimum": True},
        [4],
        [3],
    ),
    (
        {
            "$schema": DRAFT_4,
            "type": "integer",
            "maximum": 5,
            "allOf": [{"minimum": 3, "exclusiveMinimum": True}, {"minimum": 5}],
        },
        [5],
        [3, 4],
    ),
    # Items of several schemas.
    (
        {
            "type": "array",
            "prefixItems": [{"type": ["string", "null"]}],
            "allOf": [{"items": {"type": ["integer", "null"]}}],
        },
        [[], [None, 1]],
        [["a"], [1]],
    ),
    (
        {
            "$schema": DRAFT_7,
            "type": "array",
            "allOf": [
                {"items": [{"type": "integer"}], "additionalItems": {"minimum": 5}},
                {"items": {"type": "number"}},
            ],
        },
        [[1], [1, 5]],
        [[1.5], [1, 4]],
    ),
    # Branches keep their types and first items.
    (
        {"oneOf": [{"type": "boolean", "required": ["b"]}, {"type": "object", "required": ["a"]}]},
        [True, {"a": 1}],
        [{"b": 1}],
    ),
    (
        {
            "oneOf": [
                {"type": "array", "items": {"const": "a"}, "maxItems": 1},
                {"type": "array", "prefixItems": [{"const": "a"}], "items": {"const": "b"}},
            ]
        },
        [],
        [["a"]],
    ),
    (
        {
            "type": "string",
            "allOf": [{"pattern": "^a"}, {"pattern": "b$"}],
            "oneOf": [{"maxLength": 2}, {"minLength": 3}],
        },
        ["ab", "axb"],
        ["ac"],
    ),
    # `contains` within limits.
    ({"type": "array", "contains": {"const": 1}, "minContains": 0}, [[], [2]], []),
    ({"type": "array", "minContains": 3, "maxContains": 1}, [[], [1, 2]], []),
    (
        {"type": "array", "contains": {"const": 1}, "minContains": 0, "maxContains": 0},
        [[], [2]],
        [[1], [2, 1]],
    ),
    (
        {
            "type": "array",
            "contains": {"type": "null"},
            "maxContains": 1,
            "items": {"type": "null"},
        },
        [[None]],
        [[], [None, None]],
    ),
    (
        {
            "type": "array",
            "contains": {"minimum": 5},
            "maxContains": 2,
            "items": {"type": "integer"},
        },
        [[5], [6, 1]],
        [[], [4], [5, 5, 5]],
    ),
    (
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}],
            "items": {"type": "string"},
            "contains": {"enum": [1, "a"]},
        },
        [[1], [2, "a"]],
        [[], [2], [2, "b"]],
    ),
    # What depends on a member.
    (
        {
            "$schema": DRAFT_7,
            "type": "object",
            "properties": {name: {"type": "null"} for name in "abc"},
            "additionalProperties": False,
            "dependencies": {"a": ["b"], "b": {"required": ["c"]}},
        },
        [{}, {"c": None}, {"a": None, "b": None, "c": None}],
        [{"a": None}, {"a": None, "b": None}],
    ),
    (
        {
            "type": "object",
            "properties": {name: {"type": "null"} for name in "abc"},
            "dependentRequired": {"a": ["b"]},
            "dependentSchemas": {"a": {"required": ["c"]}},
        },
        [{}, {"a": None, "b": None, "c": None}],
        [{"a": None, "b": None}, {"a": None, "c": None}],
    ),
    (
        {"type": "object", "dependentRequired": {"a": ["b"]}, "propertyNames": {"const": "c"}},
        [{}, {"c": 1}],
        [{"a": 1}],
    ),
    # Multiples of decimals: whole ones, and what a float holds.
    (
        {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 100},
        [0, 100, 12.5, 99.75, 3.25, 12.0],
        [-1, 100.25, 0.001],
    ),
    ({"type": "number", "multipleOf": 0.01, "minimum": 0.1, "maximum": 0.2}, [0.1, 0.13], [0.07]),
    ({"type": "number", "multipleOf": 2.5}, [0, 5, -10], [1, 2]),
    ({"type": "number", "allOf": [{"multipleOf": 0.1}, {"multipleOf": 3}]}, [3, -6], [1, 0.3]),
    ({"type": "integer", "multipleOf": 0.1, "minimum": 1, "maximum": 3}, [1, 3], [0, 4]),
    (
        {
            "properties": {name: {"type": "null"} for name in "abcd"},
            "oneOf": [
                {"anyOf": [{"required": ["a", "b"]}, {"required": ["a", "c"]}]},
                {"anyOf": [{"required": ["d", "b"]}, {"required": ["d", "c"]}]},
            ],
        },
        [{"a": None, "c": None}, {"b": None, "d": None}],
        [{"b": None, "c": None}, {"a": None, "b": None, "d": None}],
    ),
]


def plain(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize(("schema", "valid", "invalid"), SCHEMAS, ids=range(len(SCHEMAS)))
def test_what_is_derived_is_valid(schema: Any, valid: list[Any], invalid: list[Any]) -> None:
    try:
        grammar = read_json_schema(schema)
    except GrammarError:
        assert not valid
        return
    checker = Checker.of(grammar, 8)
    validator = validator_for(schema)(schema)
    rng = random.Random(0)
    for _ in range(60):
        text = sentence(grammar, rng)
        validator.validate(json.loads(text))
        assert checker.completable([text], True) is Verdict.YES
    for value in valid:
        assert checker.completable([plain(value)], True) is Verdict.YES, value
        compact = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        assert checker.completable([b" \n" + compact + b" "], True) is Verdict.YES, value
    for value in invalid:
        assert checker.completable([plain(value)], True) is Verdict.NO, value


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (False, "no value is valid: nothing satisfies #$"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "nothing satisfies #$"),
        ({"type": "object", "required": ["a"], "properties": {"a": False}}, "no value is valid"),
        (
            {
                "type": "object",
                "required": ["a"],
                "properties": {"a": {"type": "string", "minLength": 3, "maxLength": 2}},
            },
            "nothing satisfies #/properties/a$",
        ),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "no value is valid",
        ),
        ({"$ref": "#"}, "refers to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{}, {"$ref": "#"}]}}}, "refers to itself"),
        ({"$ref": "#/definitions/a"}, "points at nothing"),
        ({"$ref": "http://example.org/a"}, "is not within the schema"),
        ({"properties": {"a": {"typo": 1}}}, "#/properties/a: unknown keyword typo"),
        ({"unevaluatedItems": False}, "keyword unevaluatedItems is not supported"),
        ({"propertyNames": {"$dynamicRef": "#"}}, "#/propertyNames: keyword .dynamicRef is not"),
        ({"not": {"minimum": 1}}, "this use of not is not supported"),
        ({"type": "text"}, '#: "text" is no type of 2020-12'),
        (
            {"type": ["text", "null"]},
            r'#: \["text", "null"\] is no type of 2020-12, which has object',
        ),
        ({"type": ["null", "null"]}, r'#: type names a type twice: \["null", "null"\]$'),
        ({"type": []}, r"#: type needs at least one type, not \[\]$"),
        ({"multipleOf": 0}, "^#: multipleOf=0 must be > 0$"),
        ({"$schema": DRAFT_4, "multipleOf": -1}, "^#: multipleOf=-1 must be > 0$"),
        ({"$schema": DRAFT_4, "minLength": 2.0}, "#: minLength needs an integer in draft-04"),
        ({"pattern": r"^\p{L}{2}$"}, r"is no regex: \\p is not supported at position 1$"),
        (
            {"$ref": "#" + "/a" * 100_000},
            r"^#: .ref .{1,300} \.\.\. [/a]{1,150} points at nothing$",
        ),
        ([1], "is no schema"),
        ({"type": 5}, "#: type needs a type or a list of types, not 5"),
        ({"minLength": "2"}, '#: minLength needs a whole number >= 0, not "2"'),
        ({"maxItems": -1}, "#: maxItems needs a whole number >= 0, not -1"),
        ({"maximum": [1]}, "#: maximum needs a number"),
        ({"pattern": 1}, "#: pattern needs a text"),
        ({"format": ["date"]}, "#: format needs a text"),
        ({"enum": "ab"}, "#: enum needs a list of values"),
        ({"required": [1]}, "#/required/0: 1 is not what 2020-12 has there"),
        ({"required": True}, "#: required needs a list of names"),
        ({"properties": []}, "#: properties needs an object"),
        ({"allOf": {}}, "#: allOf needs a list of schemas"),
        ({"anyOf": []}, "#: anyOf needs a list of schemas"),
        ({"$ref": 1}, "#: .ref needs a text"),
        ({"allOf": [{"minimum": 1}, {"minimum": "2"}]}, "#/allOf/1: minimum needs a number"),
        ({"oneOf": [{"$ref": 1}, {"type": "string"}]}, "#/oneOf/0: .ref needs a text"),
        ({"not": {"required": 1}}, "#/not: required needs a list of names"),
        ({"propertyNames": {"enum": 1}}, "#/propertyNames: enum needs a list of values"),
        ({"propertyNames": 1}, "propertyNames needs"),
        (
            {"properties": {"a": {}}, "patternProperties": {"([": {}}},
            r'#/patternProperties: "\(\[" is no regex',
        ),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, "needs a number in 2020-12"),
        ({"type": "array", "items": [{}]}, "#: items is a list, which 2020-12 writes prefixItems"),
        ({"$schema": NEWEST, "items": [{}]}, "#: items is a list, which 2020-12"),
        ({"type": "null", "definitions": 3}, "#/definitions: 3 is no schema"),
        ({"properties": {"a": [1]}}, r"#/properties/a: \[1\] is no schema"),
        ({"dependencies": {"a": 3}}, "#/dependencies/a: 3 is"),
        *(({key: 3}, f"#: {key} needs a schema, not 3") for key in ("not", "if", "then", "else")),
        ({"$ref": "#/default", "default": {"if": 3}}, "#: if needs a schema"),
        ({"$schema": DRAFT_4, "const": 3}, "#: keyword const is none of draft-04"),
        ({"$schema": DRAFT_4, "exclusiveMinimum": 3}, "needs a boolean in draft-04"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "draft-03.* is not supported"),
        ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, "#: .ref #a names an anchor"),
        ({"type": "string", "pattern": "(?<=a)b"}, "look-around .* is not supported"),
        ({"type": "string", "pattern": r"(a)\1"}, "a back-reference is not supported"),
    ],
)
def test_schemas_that_cannot_be_used(schema: Any, complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint):
        read_json_schema(schema)


OBJECT = {"type": "object"}
STRING = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 0.1, "maximum": 0.9},
        {"type": "integer", "multipleOf": 7, "minimum": 8, "maximum": 13},
        {"type": "number", "exclusiveMinimum": 1, "maximum": 1},
        {"type": "number", "multipleOf": 0.01, "minimum": 0.011, "maximum": 0.019},
        {**STRING, "pattern": "^a", "allOf": [{"pattern": "^b"}]},
        {**STRING, "pattern": "^a$", "minLength": 2},
        {**STRING, "enum": [1, 2]},
        {"const": 1, "enum": [2]},
        {"allOf": [{"const": 1}, {"const": 2}]},
        {"enum": []},
        {"type": "array", "minItems": 2, "maxItems": 1},
        {"type": "array", "prefixItems": [{}], "items": False, "minItems": 2},
        {"type": "array", "items": {"enum": [1, 1.0]}, "uniqueItems": True, "minItems": 2},
        {"type": "array", "contains": True, "minContains": 2, "maxContains": 1},
        {"type": "array", "contains": {"const": 1}, "items": {"const": 2}},
        {**OBJECT, "minProperties": 2, "maxProperties": 1},
        {**OBJECT, "required": ["a", "b"], "maxProperties": 1},
        {**OBJECT, "required": ["ab"], "propertyNames": {"maxLength": 1}},
        {**OBJECT, "required": ["a"], "additionalProperties": False},
        {"not": {}},
        {"not": True},
        {**OBJECT, "required": ["a"], "properties": {"a": {"not": {}}}},
        {"oneOf": [False, {**STRING, "enum": [1]}]},
    ],
)
def test_what_nothing_satisfies_is_said_to_be_so(schema: Any) -> None:
    with pytest.raises(EmptyLanguage, match="no value is valid"):
        read_json_schema(schema)


@pytest.mark.parametrize(
    ("schema", "keyword", "valid"),
    [
        ({**OBJECT, "patternProperties": {"^x": {}}, "minProperties": 2}, "minProperties", {}),
        ({**OBJECT, "propertyNames": {"pattern": "^\n$"}, "minProperties": 1}, "", {"\n": 1}),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-20}, "", 1e-21),
        ({"type": "number", "minimum": 1e-30, "maximum": 2e-30}, "minimum", 1e-30),
        ({"type": "number", "multipleOf": 1e-5, "exclusiveMinimum": 0}, "multipleOf", 3e-5),
        ({**STRING, "pattern": "^\n$"}, "pattern", "\n"),
        ({**STRING, "pattern": "^a{300}$", "maxLength": 400}, "pattern", "a" * 300),
        ({**STRING, "pattern": r"^\ud800$"}, "pattern", "\ud800"),
        ({**STRING, "format": "date", "pattern": "^2024-02-29$"}, "format", "2024-02-29"),
        ({**STRING, "format": "date", "allOf": [{"format": "ipv4"}]}, "format", None),
        ({"format": "uuid", "enum": ["x"]}, "format", None),
        ({"enum": ["x"], "if": {"not": {"format": "uuid"}}, "then": False}, "format", "x"),
        ({"enum": ["x"], "not": {"format": "uuid"}}, "format", None),
        ({"minLength": 3, "maxLength": 2}, "a schema without type", 1),
        ({"required": ["a"], "additionalProperties": False}, "a schema without type", 1),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "a schema without type", 1),
        ({**STRING, "minLength": 1, "maxLength": 1, "not": {"pattern": "^[^\n]$"}}, "not", "\n"),
        (
            {
                "type": "array",
                "prefixItems": [{"const": 1}, {"const": 2}, {"const": 1}],
                "items": False,
                "contains": {"const": 1},
                "minContains": 2,
            },
            "contains",
            [1, 2, 1],
        ),
    ],
)
def test_what_cannot_be_written_is_not_said_to_be_invalid(
    schema: Any, keyword: str, valid: Any
) -> None:
    if valid not in (None, {}):
        validator_for(schema)(schema).validate(valid)
    with pytest.raises(GrammarError, match=f"no value can be expressed: {keyword}") as caught:
        read_json_schema(schema)
    assert not isinstance(caught.value, EmptyLanguage)


def test_a_pattern_that_python_searches_in_exponential_time_is_no_obstacle() -> None:
    text = "a" * 60 + "b"
    schema = {
        "enum": [text, "aa", {text: 1}],
        "pattern": "^(a+)+$",
        "properties": {text: {"type": "null"}},
        "patternProperties": {"^(a+)+$": {"type": "null"}},
    }
    known = {key: schema[key] for key in ("enum", "pattern")}
    checker = Checker.of(read_json_schema(known), 8)
    assert checker.completable([b'"aa"'], True) is Verdict.YES
    assert checker.completable([f'"{text}"'.encode()], True) is Verdict.NO
    read_json_schema({key: value for key, value in schema.items() if key != "enum"})


def test_unknown_keywords_can_be_passed_over() -> None:
    read_json_schema({"type": "null", "typo": 1}, ignore_unknown=True)


@pytest.mark.parametrize("length", [60, 100, 5000])
def test_references_in_a_row_are_as_many_as_the_judge_follows(length: int) -> None:
    chain: dict[str, Any] = {str(i): {"$ref": f"#/definitions/{i + 1}"} for i in range(length)}
    chain[str(length)] = {"type": "null"}
    text = json.dumps({"$schema": DRAFT_7, "$ref": "#/definitions/0", "definitions": chain})
    language = JsonSchema(text, ignore_unknown=False)
    if length > 64:
        with pytest.raises(GrammarError, match="more than 64 references lead one to the next"):
            language.grammar(NEVER)
    else:
        language.grammar(NEVER)
        assert language.complaint("null") is None


@pytest.mark.parametrize(("draft", "valid"), [(DRAFT_4, True), (DRAFT_7, True), (NEWEST, False)])
def test_the_judge_reads_siblings_of_a_reference_as_the_draft_does(draft: str, valid: bool) -> None:
    schema = {"$schema": draft, "type": "null", "$ref": "#/$defs/a"}
    text = json.dumps({**schema, "$defs": {"a": {"type": "boolean"}}})
    assert (JsonSchema(text, ignore_unknown=False).complaint("true") is None) is valid


def test_an_answer_too_deep_for_the_judge_is_one_line() -> None:
    language = JsonSchema('{"items": {"$ref": "#"}}', ignore_unknown=False)
    assert language.complaint("[" * 900 + "]" * 900) == "nested too deeply to be judged"


def test_keywords_of_other_drafts_can_be_passed_over() -> None:
    grammar = read_json_schema({"$schema": DRAFT_4, "enum": [1, 2], "const": 1}, True)
    assert Checker.of(grammar, 8).completable([b"2"], True) is Verdict.YES


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"maximum": NaN}', "NaN is no number"),
        ('{"maximum": -Infinity}', "-Infinity is no number"),
        ('{"maximum": 1e400}', "a number that is too large"),
        ('{"enum": [1, {"a": -1e999}]}', "a number that is too large"),
        ('{"const": ' + "1" * 5000 + "}", "a number that is too large"),
        (r'{"const": "\ud800"}', "half a surrogate pair"),
        (r'{"properties": {"\udfff": {}}}', "half a surrogate pair"),
        ('{"type": "null", "type": "string"}', 'two members "type" in one object'),
        ('{"properties": {"a": {}, "a": {}}}', 'two members "a" in one object'),
        ('{"type": ', "is not valid JSON: Expecting value"),
        (" " * 4_000_001, "^4000001 characters are more than"),
    ],
)
def test_texts_that_cannot_be_read(text: str, complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint):
        JsonSchema(text, ignore_unknown=True).grammar(NEVER)


def test_an_empty_branch_is_left_out() -> None:
    with pytest.raises(EmptyLanguage):
        read_json_schema({"anyOf": [False, {"type": "string", "minLength": 2, "maxLength": 1}]})


@pytest.mark.parametrize("name", [*strings.FORMATS])
def test_what_is_spelled_of_a_format_has_it(name: str) -> None:
    schema = {"type": "string", "format": name}
    grammar, rng = read_json_schema(schema), random.Random(0)
    language = JsonSchema(json.dumps(schema), ignore_unknown=False)
    for _ in range(60):
        assert language.complaint(sentence(grammar, rng).decode()) is None

"""Several schemas that all hold, as one: `allOf`, references with siblings, branches with what
stands beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dllm.constraints.errors import GrammarError
from dllm.constraints.json_schema.strings import matches


Schema = Mapping[str, Any] | bool
REPEATED = ("format", "multipleOf", "oneOf", "pattern")
"""Keywords of which several hold together; an `allOf` repeats those after the first."""


def both(left: Schema, right: Schema, where: str) -> Schema:
    """The schema that accepts what both accept.

    Raises `GrammarError` for two keywords that can't be expressed as one.
    """
    if left is True or right is False:
        return right
    if right is True or left is False:
        return left
    assert isinstance(left, Mapping) and isinstance(right, Mapping)
    merged = dict(left)
    for words, joined in _JOINED:
        if words & left.keys() and words & right.keys():
            kept = {key: value for key, value in merged.items() if key not in words}
            merged = {**kept, **joined(left, right)}
            right = {key: value for key, value in right.items() if key not in words}
    for key, value in right.items():
        if key not in merged or same(merged[key], value):
            merged[key] = value
        elif key in _RULES:
            merged[key] = _RULES[key](merged[key], value)
        elif key in REPEATED:
            if not among(value, values_of(merged, key)):
                merged["allOf"] = [*merged.get("allOf", []), {key: value}]
        elif key == "const":
            return False
        elif key not in _NOTES:
            raise GrammarError(f"{where}: two values of {key} can't be merged")
    return merged


def values_of(schema: Mapping[str, Any], key: str) -> list[Any]:
    """The values of one of `REPEATED` in a merged schema."""
    parts = [schema, *schema.get("allOf", [])]
    return [part[key] for part in parts if isinstance(part, Mapping) and key in part]


def only_repeats(schema: Mapping[str, Any]) -> bool:
    """Whether `allOf` holds nothing but what merging leaves there."""
    return all(
        isinstance(part, Mapping)
        and len(part) == 1
        and all(key in REPEATED and key in schema for key in part)
        for part in schema["allOf"]
    )


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, but true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right


def among(value: Any, values: list[Any]) -> bool:
    return any(same(value, one) for one in values)


def types(value: Any) -> list[str]:
    """A `type` as a list."""
    return [value] if isinstance(value, str) else list(value)


def of_member(schema: Mapping[str, Any], name: str) -> list[Schema]:
    """The schemas that hold for one property of an object."""
    found = [
        value
        for pattern, value in schema.get("patternProperties", {}).items()
        if matches(pattern, name)
    ]
    if name in schema.get("properties", {}):
        found.append(schema["properties"][name])
    return found or [schema.get("additionalProperties", True)]


def places(schema: Mapping[str, Any]) -> tuple[list[Schema], Schema]:
    """The schemas of the first items, one each, and of all others, in whatever draft."""
    rest = schema.get("items", True)
    if isinstance(rest, list):
        return rest, schema.get("additionalItems", True)
    return schema.get("prefixItems", []), rest


def _items(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    (ours, our_rest), (theirs, their_rest) = places(left), places(right)
    first = [
        _all([*(ours[i : i + 1] or [our_rest]), *(theirs[i : i + 1] or [their_rest])])
        for i in range(max(len(ours), len(theirs)))
    ]
    return {**({"prefixItems": first} if first else {}), "items": _all([our_rest, their_rest])}


def _members(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    names = [*left.get("properties", {}), *right.get("properties", {})]
    patterns: dict[str, Schema] = dict(left.get("patternProperties", {}))
    for pattern, value in right.get("patternProperties", {}).items():
        patterns[pattern] = _all([patterns.get(pattern, True), value])
    rest = [left.get("additionalProperties", True), right.get("additionalProperties", True)]
    merged: dict[str, Any] = {
        "properties": {
            name: _all([*of_member(left, name), *of_member(right, name)])
            for name in dict.fromkeys(names)
        },
        "additionalProperties": _all(rest),
    }
    if patterns:
        if not all(isinstance(value, bool) and value for value in rest):
            raise GrammarError("patternProperties can't be merged with additionalProperties")
        merged["patternProperties"] = patterns
    return merged


def _all(schemas: list[Schema]) -> Schema:
    if False in schemas:
        return False
    kept = [schema for schema in schemas if schema is not True and schema != {}]
    if not kept:
        return True
    return kept[0] if len(kept) == 1 else {"allOf": kept}


def _common_types(left: Any, right: Any) -> list[str]:
    a, b = types(left), types(right)
    # Every integer is a number.
    return [t for t in a if t in b or (t == "integer" and "number" in b)] + [
        "integer" for t in b if t == "integer" and "number" in a and "integer" not in a
    ]


_NOTES = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "$schema",
        "$id",
        "id",
        "$comment",
        "definitions",
        "$defs",
        "readOnly",
        "writeOnly",
        "deprecated",
    ]
)
_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "type": _common_types,
    "enum": lambda a, b: [value for value in a if among(value, b)],
    "required": lambda a, b: list(dict.fromkeys([*a, *b])),
    "minimum": max,
    "maximum": min,
    "exclusiveMinimum": max,
    "exclusiveMaximum": min,
    "minLength": max,
    "maxLength": min,
    "minItems": max,
    "maxItems": min,
    "minProperties": max,
    "maxProperties": min,
    "uniqueItems": lambda a, b: a or b,
    "propertyNames": lambda a, b: _all([a, b]),
    "allOf": lambda a, b: [*a, *b],
    "anyOf": lambda a, b: [{"allOf": [x, y]} for x in a for y in b],
    "not": lambda a, b: {"anyOf": [a, b]},
}
_JOINED: list[tuple[set[str], Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]]] = [
    ({"properties", "patternProperties", "additionalProperties"}, _members),
    ({"prefixItems", "items", "additionalItems"}, _items),
]
"""Keywords that depend on each other, and what they are together."""

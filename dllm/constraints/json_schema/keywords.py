"""Which keywords are understood, and references within a schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from dllm.constraints.errors import GrammarError


ANNOTATIONS = frozenset(
    [
        "$schema",
        "$id",
        "id",
        "$comment",
        "$anchor",
        "title",
        "description",
        "default",
        "examples",
        "example",
        "readOnly",
        "writeOnly",
        "deprecated",
        "definitions",
        "$defs",
        "$vocabulary",
        "contentEncoding",
        "contentMediaType",
        "format",
    ]
)
"""Say nothing about which values are valid (`format` is enforced where it is known)."""

UNDERSTOOD = frozenset(
    [
        "type",
        "enum",
        "const",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "if",
        "then",
        "else",
        "items",
        "prefixItems",
        "additionalItems",
        "minItems",
        "maxItems",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    ]
)
STANDARD = frozenset(
    [
        "unevaluatedProperties",
        "unevaluatedItems",
        "$dynamicRef",
        "$recursiveRef",
    ]
)
"""Restrict values, but a grammar can't say how."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_schemas(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, Mapping | bool) for one in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


_COUNT = is_count, "a whole number >= 0"
_TEXT = _is_text, "a text"
_SCHEMA = (lambda value: isinstance(value, Mapping | bool)), "a schema"
_SCHEMAS = (lambda value: bool(value) and _are_schemas(value)), "a list of schemas"
_OBJECT = _is_object, "an object"
_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": ((lambda value: _is_text(value) or _are_texts(value)), "a type or a list of types"),
    "enum": ((lambda value: isinstance(value, list)), "a list of values"),
    "$ref": _TEXT,
    "allOf": _SCHEMAS,
    "anyOf": _SCHEMAS,
    "oneOf": _SCHEMAS,
    "properties": _OBJECT,
    "patternProperties": _OBJECT,
    # Draft 3 writes it into the property.
    "required": (_are_texts, "a list of names"),
    "propertyNames": _SCHEMA,
    "not": _SCHEMA,
    "if": _SCHEMA,
    "then": _SCHEMA,
    "else": _SCHEMA,
    "contains": _SCHEMA,
    "dependencies": _OBJECT,
    "dependentRequired": _OBJECT,
    "dependentSchemas": _OBJECT,
    "minContains": _COUNT,
    "maxContains": _COUNT,
    "minProperties": _COUNT,
    "maxProperties": _COUNT,
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "prefixItems": _SCHEMAS,
    "uniqueItems": ((lambda value: isinstance(value, bool)), "true or false"),
    "pattern": _TEXT,
    "format": _TEXT,
    "minimum": (_is_number, "a number"),
    "maximum": (_is_number, "a number"),
    "exclusiveMinimum": (_is_number, "a number"),
    "exclusiveMaximum": (_is_number, "a number"),
    "multipleOf": (_is_number, "a number"),
}
"""What the values of keywords have to be."""


COUNTS = frozenset(keyword for keyword, shape in _SHAPES.items() if shape is _COUNT)
"""Keywords that count; drafts from 6 on take 2.0 for 2."""


def malformed(schema: Mapping[str, Any], where: str) -> str | None:
    """What is wrong with a keyword whose value says nothing."""
    for keyword in schema.keys() & _SHAPES.keys():
        is_right, wanted = _SHAPES[keyword]
        if not is_right(schema[keyword]):
            shown = json.dumps(schema[keyword])[:40]
            return f"{where}: {keyword} needs {wanted}, not {shown}"
    return None


def well_formed(schema: Mapping[str, Any], where: str) -> None:
    """Raises `GrammarError` for a keyword with a value that says nothing."""
    complaint = malformed(schema, where)
    if complaint is not None:
        raise GrammarError(complaint)


def check(schema: Mapping[str, Any], where: str, ignore_unknown: bool) -> None:
    """Raises `GrammarError` for a keyword that is not understood or malformed; one that no standard
    names is let pass with `ignore_unknown`."""
    well_formed(schema, where)
    for keyword in schema:
        if keyword in UNDERSTOOD or keyword in ANNOTATIONS:
            continue
        if keyword in STANDARD:
            raise GrammarError(f"{where}: keyword {keyword} is not supported")
        if not ignore_unknown:
            raise GrammarError(
                f"{where}: unknown keyword {keyword}; constraint.unsupported=ignore passes over it"
            )


def resolve(root: Any, reference: str, where: str) -> Any:
    """What a reference within the same document points at."""
    if not reference.startswith("#"):
        raise GrammarError(f"{where}: $ref {reference} is not within the schema")
    path = unquote(reference[1:])
    if path and not path.startswith("/"):
        raise GrammarError(f"{where}: $ref {reference} names an anchor, which is not supported")
    here = root
    for part in path.split("/")[1:]:
        key: Any = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list) and key.isdigit():
            key = int(key)
        try:
            here = here[key]
        except (KeyError, IndexError, TypeError):
            raise GrammarError(f"{where}: $ref {reference} points at nothing") from None
    return here

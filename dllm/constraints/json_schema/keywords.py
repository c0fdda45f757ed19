"""Which keywords are understood, and references within a schema."""

from __future__ import annotations

from collections.abc import Mapping
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
        "items",
        "prefixItems",
        "additionalItems",
        "minItems",
        "maxItems",
        "uniqueItems",
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
        "if",
        "then",
        "else",
        "contains",
        "minContains",
        "maxContains",
        "dependentSchemas",
        "unevaluatedProperties",
        "unevaluatedItems",
        "$dynamicRef",
        "$recursiveRef",
    ]
)
"""Restrict values, but a grammar can't say how."""


def check(schema: Mapping[str, Any], where: str, ignore_unknown: bool) -> None:
    """Raises `GrammarError` for a keyword that is not understood; one that no standard names is let
    pass with `ignore_unknown`."""
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
    here = root
    for part in unquote(reference[1:]).split("/")[1:]:
        key: Any = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list) and key.isdigit():
            key = int(key)
        try:
            here = here[key]
        except (KeyError, IndexError, TypeError):
            raise GrammarError(f"{where}: $ref {reference} points at nothing") from None
    return here

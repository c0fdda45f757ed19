"""Branches of `oneOf` that keep clear of each other: a value may satisfy one of them only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm.constraints.errors import GrammarError
from dllm.constraints.json_schema.merging import both, of_member, types


def exclusive(branches: list[Any], where: str) -> list[Any]:
    """The branches, each narrowed until no other one holds too; those that can't be are left out.

    Raises `GrammarError` if none is left.
    """
    kept = []
    for i, branch in enumerate(branches):
        narrowed = branch
        for j, other in enumerate(branches):
            if i != j and narrowed is not None:
                narrowed = _without(narrowed, other, where)
        if narrowed is not None:
            kept.append(narrowed)
    if not kept:
        raise GrammarError(f"{where}: the branches of oneOf can't be told apart")
    return kept


def _without(branch: Any, other: Any, where: str) -> Any | None:
    """The branch cut down to values that `other` refuses; None if no way is known."""
    if other is False:
        return branch
    if not isinstance(branch, Mapping) or not isinstance(other, Mapping):
        return None
    if _disjoint(branch, other):
        return branch
    given, refusing = _types(branch), _types(other)
    if given and refusing:
        remaining = [t for t in given if t not in refusing]
        if "number" in refusing:
            remaining = [t for t in remaining if t != "integer"]
        if "integer" in refusing:
            remaining = [t for t in remaining if t != "number"]
        if remaining:
            return {**branch, "type": remaining}
    required = set(branch.get("required", ()))
    if given == ["object"] or required:
        for name in other.get("required", ()):
            if name not in required:
                # An object without that member: the other branch misses it.
                return both({**branch, "type": "object"}, {"properties": {name: False}}, where)
        if other.get("additionalProperties") is False and not other.get("patternProperties"):
            for name in required:
                if name not in other.get("properties", {}):
                    return {**branch, "type": "object"}
    return None


def _disjoint(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether it is plain that no value satisfies both."""
    a, b = _types(left), _types(right)
    if a and b and not _overlap(a, b):
        return True
    ours, theirs = _values(left), _values(right)
    if ours is not None and theirs is not None:
        return not any(value in theirs for value in ours)
    if a == b == ["object"]:
        for name in set(left.get("required", ())) & set(right.get("required", ())):
            pairs = [
                (x, y)
                for x in of_member(left, name)
                for y in of_member(right, name)
                if isinstance(x, Mapping) and isinstance(y, Mapping)
            ]
            if any(_disjoint(x, y) for x, y in pairs):
                return True
    return False


def _overlap(left: list[str], right: list[str]) -> bool:
    wide = [set(kinds) | ({"integer"} if "number" in kinds else set()) for kinds in (left, right)]
    return not wide[0].isdisjoint(wide[1])


def _types(schema: Mapping[str, Any]) -> list[str]:
    return types(schema["type"]) if "type" in schema else []


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")

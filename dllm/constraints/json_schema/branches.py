"""What can be said in other words: branches of `oneOf` that keep clear of each other, negations,
conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm.constraints.errors import GrammarError
from dllm.constraints.json_schema.merging import Schema, among, both, of_member, places, types


MAX_DEPENDENT = 3
"""Properties on which others depend, each there or not in an alternative of its own."""
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def exclusive(branches: list[list[Any]], where: str) -> list[Any]:
    """The branches, each a list of alternatives, narrowed until no other branch holds too; what
    can't be is left out.

    Raises `GrammarError` if none is left.
    """
    kept = []
    for i, options in enumerate(branches):
        others = [other for j, branch in enumerate(branches) if i != j for other in branch]
        for option in options:
            left = option
            for other in others:
                if left is not None:
                    left = _without(left, other, where)
            if left is not None:
                kept.append(left)
    if not kept and any(branches):
        raise GrammarError(f"{where}: the branches of oneOf can't be told apart")
    return kept


def spelled_out(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """With alternatives in place of conditions (`if`, dependencies, `contains`)."""
    told = dict(schema)
    conditions: list[list[Schema]] = []
    condition = told.pop("if", None)
    then, otherwise = told.pop("then", True), told.pop("else", True)
    if condition is not None:
        conditions.append(
            [{"allOf": [condition, then]}, {"allOf": [{"not": condition}, otherwise]}]
        )
    conditions += _dependent(told)
    conditions += _containing(told)
    if conditions:
        told["allOf"] = [*told.get("allOf", []), *({"anyOf": options} for options in conditions)]
    return told


def narrowed(schema: Mapping[str, Any]) -> list[str]:
    """Keywords of which `spelled_out` says less than they mean."""
    found = []
    if len(_wanted_beside(schema)) > MAX_DEPENDENT:
        found.append("dependencies")
    if "contains" in schema:
        least = schema.get("minContains", 1)
        if places(schema)[0] or schema.get("maxContains", -1) >= least:
            found.append("contains")
    return found


def _wanted_beside(schema: Mapping[str, Any]) -> dict[str, list[Schema]]:
    """What has to hold where a property is there, by its name; old drafts have one keyword, new
    ones two."""
    found: dict[str, list[Schema]] = {}
    for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
        for name, wanted in schema.get(keyword, {}).items():
            part = {"required": wanted} if isinstance(wanted, list) else wanted
            found.setdefault(name, []).append(part)
    return found


def _dependent(told: dict[str, Any]) -> list[list[Schema]]:
    wanted = _wanted_beside(told)
    for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
        told.pop(keyword, None)
    pairs: list[tuple[Schema, Schema]] = [
        ({"properties": {name: False}}, {"allOf": [{"required": [name]}, *parts]})
        for name, parts in wanted.items()
    ]
    if len(pairs) <= MAX_DEPENDENT:
        return [list(pair) for pair in pairs]
    # All choices of so many would be too many.
    return [[{"allOf": list(side)} for side in zip(*pairs, strict=True)]]


def _containing(told: dict[str, Any]) -> list[list[Schema]]:
    least, most = told.pop("minContains", 1), told.pop("maxContains", None)
    wanted = told.pop("contains", None)
    if wanted is None or (least == 0 and most is None):
        return []
    if most is not None and most < least:
        return [[{"minItems": 1, "maxItems": 0}]]
    other: Schema = True
    limits: dict[str, Any] = {}
    if most is not None:
        if deniable(wanted):
            other = {"not": wanted}
        else:
            limits["maxItems"] = most
    options: list[Schema] = []
    for start in range(len(places(told)[0]) + 1):
        first = [other] * start + [wanted] * least
        option = {**limits, "minItems": start + least if least else 0, "items": other}
        options.append({**option, "prefixItems": first} if first else option)
    return [options if least else options[:1]]


def deniable(schema: Schema) -> bool:
    """Whether something is known that the schema refuses."""
    if isinstance(schema, bool):
        return True
    return bool({"const", "enum", "pattern"} & schema.keys() or negations(schema))


def negations(refused: Schema) -> list[Schema]:
    """Schemas whose values `refused` does not accept, as far as they can be told."""
    if isinstance(refused, bool):
        return [] if refused else [True]
    found: list[Schema] = []
    if "type" in refused:
        given = types(refused["type"])
        rest = [t for t in TYPES if t not in given and not _overlap([t], given)]
        found.append({"type": rest})
    # What holds for objects only is not violated by anything else.
    for name in refused.get("required", ()):
        found.append({"type": "object", "properties": {name: False}})
    for name, held in refused.get("properties", {}).items():
        if held is not True and held != {}:
            bad = {"properties": {name: {"not": held}}, "required": [name]}
            found.append({"type": "object", **bad})
    for part in refused.get("allOf", ()):
        found += negations(part)
    if "anyOf" in refused:
        whole: list[Schema] = [True]
        for part in refused["anyOf"]:
            whole = [both(old, new, "not") for old in whole for new in negations(part)]
        found += whole
    if "not" in refused:
        found.append(refused["not"])
    return found


def kinds(value: Any) -> tuple[str, ...]:
    """The types of which a value is."""
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, int | float):
        return ("integer", "number")
    if isinstance(value, str):
        return ("string",)
    if value is None:
        return ("null",)
    return ("array",) if isinstance(value, list) else ("object",)


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
    if given and refusing and {*given, *refusing} <= {"integer", "number"}:
        outside = {"minimum": "exclusiveMaximum", "maximum": "exclusiveMinimum"}
        for bound, beyond in outside.items():
            if bound in other:
                return both(branch, {beyond: other[bound]}, where)
    if given == refusing == ["array"] and not places(branch)[0] and not places(other)[0]:
        mine, its = branch.get("items"), other.get("items")
        if isinstance(mine, Mapping) and isinstance(its, Mapping) and _disjoint(mine, its):
            # Both accept the empty one.
            return both(branch, {"minItems": 1}, where)
    ours, theirs = _values(branch), _values(other)
    if ours is not None and theirs is not None:
        left = [value for value in ours if not among(value, theirs)]
        rest = {key: value for key, value in branch.items() if key != "const"}
        return {**rest, "enum": left} if left else None
    required = set(branch.get("required", ()))
    if "object" in given or (required and not given):
        for name in other.get("required", ()):
            if name not in required:
                # An object without that member: the other branch misses it.
                return both({**branch, "type": "object"}, {"properties": {name: False}}, where)
        if other.get("additionalProperties") is False and not other.get("patternProperties"):
            for name in required:
                if name not in other.get("properties", {}):
                    return {**branch, "type": "object"}
    if given == ["object"]:
        for name, held in other.get("properties", {}).items():
            # An object whose member is of a type that the other branch does not want there.
            for bad in negations({"type": held["type"]} if _typed(held) else {}):
                own = {"type": "object", "required": [name], "properties": {name: bad}}
                if all(_typed(one) is None or _meet(one, bad) for one in of_member(branch, name)):
                    return both(branch, own, where)
    return None


def _typed(schema: Schema) -> Any:
    return schema.get("type") if isinstance(schema, Mapping) else None


def _meet(left: Schema, right: Schema) -> bool:
    """Whether the types of two schemas have one in common."""
    assert isinstance(left, Mapping) and isinstance(right, Mapping)
    return _overlap(_types(left), _types(right))


def _disjoint(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether it is plain that no value satisfies both."""
    a, b = _types(left), _types(right)
    if a and b and not _overlap(a, b):
        return True
    if [] in (left.get("type"), right.get("type")):
        return True
    ours, theirs = _values(left), _values(right)
    if ours is not None and theirs is not None:
        return not any(among(value, theirs) for value in ours)
    for kind, (low, high) in _RANGES.items():
        if a == b == [kind] and (_above(left, right, low, high) or _above(right, left, low, high)):
            return True
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


_RANGES = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
}


def _above(left: Mapping[str, Any], right: Mapping[str, Any], low: str, high: str) -> bool:
    """Whether the least of one schema is more than the most of the other."""
    return low in left and high in right and left[low] > right[high]


def _overlap(left: list[str], right: list[str]) -> bool:
    wide = [set(kinds) | ({"integer"} if "number" in kinds else set()) for kinds in (left, right)]
    return not wide[0].isdisjoint(wide[1])


def _types(schema: Mapping[str, Any]) -> list[str]:
    return types(schema["type"]) if "type" in schema else []


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")

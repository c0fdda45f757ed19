"""How finished answers are matched with patterns: by the `regex` package, not by our engines.

It remembers where it failed, so that few expressions take it exponential time; those few end at a
limit. The meaning is the engines' own: `\\w`, `\\d` and `\\b` are ASCII everywhere; `\\s` is ASCII,
or in a JSON schema the white space of ECMA-262, whose `$` matches at the very end only.
"""

import re
from collections.abc import Iterator
from typing import Any

from dllm.constraints.clock import Deadline
from dllm.constraints.errors import Undecided
from dllm.constraints.json_schema.drafts import Draft
from dllm.constraints.regex import ECMA_SPACE, CodeRange, complement


LIMIT = 10.0
"""Seconds of processor time for the judgement of one answer."""
LATE = f"not judged within {LIMIT:g} seconds of processor time: a pattern takes too long"

_CLASS = re.compile(r"\[\^?\]?")
_QUANTIFIER = re.compile(r"\{(\d+(,\d*)?|,\d*)\}")


def fully_matched(pattern: str, text: str, deadline: Deadline) -> bool:
    """Whether the whole text matches.

    Raises `Undecided` at the deadline.
    """
    import regex

    # In free spacing, the characters of comments mean nothing.
    free = re.search(r"\(\?[a-z]*x", pattern) is not None
    return _in_time(
        regex.compile(pattern if free else _written(pattern, {}), regex.ASCII).fullmatch,
        text,
        deadline,
    )


def validator(schema: Any, deadline: Deadline) -> Any:
    """jsonschema's validator whose patterns are matched as here; its methods raise `Undecided`."""
    from jsonschema import ValidationError
    from jsonschema.validators import extend

    def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(value, str) and not _found(wanted, value, deadline):
            yield ValidationError(f"{value!r} does not match {wanted!r}")

    def of_patterns(
        judge: Any, wanted: dict[str, Any], value: Any, _: Any
    ) -> Iterator[ValidationError]:
        for name, part in value.items() if isinstance(value, dict) else ():
            for one, inner in wanted.items():
                if _found(one, name, deadline):
                    yield from judge.descend(part, inner, path=name, schema_path=one)

    def additional(
        judge: Any, wanted: Any, value: Any, schema: dict[str, Any]
    ) -> Iterator[ValidationError]:
        for name, part in value.items() if isinstance(value, dict) else ():
            known = name in schema.get("properties", {})
            if known or any(
                _found(one, name, deadline) for one in schema.get("patternProperties", {})
            ):
                continue
            if wanted is False:
                yield ValidationError(f"the property {name!r} is not allowed")
            else:
                yield from judge.descend(part, wanted, path=name)

    named = schema if isinstance(schema, dict) else {}
    own = {
        "pattern": pattern,
        "patternProperties": of_patterns,
        "additionalProperties": additional,
    }
    # A reference to the root would ask for the dialect's own validator again.
    rest = {key: value for key, value in named.items() if key != "$schema"}
    own_draft = Draft(extend(Draft.of(schema).validator, own))
    return own_draft.judge(rest if isinstance(schema, dict) else schema)


def _found(pattern: str, text: str, deadline: Deadline) -> bool:
    import regex

    spaces = {r"\s": _members(ECMA_SPACE), r"\S": _members(complement(ECMA_SPACE))}
    return _in_time(regex.compile(_written(pattern, spaces), regex.ASCII).search, text, deadline)


def _in_time(match: Any, text: str, deadline: Deadline) -> bool:
    deadline.check()
    try:
        return match(text, timeout=deadline.left) is not None
    except TimeoutError:
        raise Undecided from None


def _members(ranges: list[CodeRange] | tuple[CodeRange, ...]) -> str:
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)


def _written(pattern: str, members: dict[str, str]) -> str:
    """A pattern of Python's for the `regex` package, where `{e}` counts errors and sets nest;
    `members`: what escapes of whole classes stand for."""
    parts, at, inside = [], 0, False
    while at < len(pattern):
        size = 2 if pattern[at] == "\\" else 1
        one = new = pattern[at : at + size]
        if one in members:
            new = members[one] if inside else f"[{members[one]}]"
        elif inside:
            inside = one != "]"
            new = r"\[" if one == "[" else one
        elif found := _CLASS.match(pattern, at):
            one = new = found[0]
            inside = True
        elif one == "$":
            new = r"\Z"
        elif one == "{" and not _QUANTIFIER.match(pattern, at):
            new = r"\{"
        parts.append(new)
        at += len(one)
    return "".join(parts)

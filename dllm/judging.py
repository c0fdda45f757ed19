"""How finished answers are matched with patterns, schemas and grammars: by the `regex`,
`jsonschema` and `lark` packages, not by our engines.

`regex` remembers where it failed, so that few expressions take it exponential time; those few end
at a limit. The meaning is the engines' own: `\\w`, `\\d` and `\\b` are ASCII everywhere; `\\s` is
ASCII, or in a JSON schema the white space of ECMA-262, whose `$` matches at the very end only.
"""

import ipaddress
import json
import re
import unicodedata
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache, lru_cache
from itertools import groupby
from math import isinf
from typing import Any

from dllm.clock import Deadline, Undecided


LIMIT = 10.0
"""Seconds of processor time for the judgement of one answer."""
LATE = f"not judged within {LIMIT:g} seconds of processor time"
FORMATS = ("date", "email", "idn-email", "ipv4", "ipv6", "regex", "uuid")
"""Formats that are judged: those that jsonschema knows without further packages."""

_CLASS = re.compile(r"\[\^?\]?")
_ESCAPE = re.compile(r"\\(N\{[^}]*\}|.)", re.DOTALL)
_COMMENT = re.compile(r"\(\?#[^)]*\)")
_QUANTIFIER = re.compile(r"\{(\d+(,\d*)?|,\d*)\}")


def read_json(text: str) -> Any:
    """The value of a JSON text.

    Raises `ValueError` for what is none (NaN and Infinity are none) or can't be read.
    """

    def no_number(name: str) -> Any:
        raise ValueError(f"{name} is no number")

    try:
        return json.loads(text, parse_constant=no_number)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None


def fully_matched(pattern: str, text: str, deadline: Deadline) -> bool:
    """Whether the whole text matches.

    Raises `Undecided` at the deadline.
    """
    return _in_time(_compiled(pattern).fullmatch, text, deadline) is not None


def check_sentence(parser: Any, text: str, deadline: Deadline) -> None:
    """Raises `LarkError` for a text that Lark's dynamic Earley parser does not accept, `Undecided`
    at the deadline."""
    terminals = {one.name: _compiled(one.pattern.to_regexp()) for one in parser.terminals}

    def matched(terminal: Any, text: str, index: int = 0) -> Any:
        return _in_time(terminals[terminal.name].match, text, deadline, index)

    # Lark's own way takes neither a limit nor another package's expressions.
    parser.parser.parser.term_matcher = matched
    parser.parse(text)


def validator(schema: Any, draft: Any, formats: Collection[str], deadline: Deadline) -> Any:
    """jsonschema's validator of a draft (one of its classes), whose patterns are matched as here;
    it fetches nothing. Its methods raise `Undecided`, and `SchemaError` for what is no pattern.

    `formats`: names of `FORMATS` that are asserted. Where `unevaluatedProperties` stands above
    `patternProperties`, jsonschema searches the names itself, without a limit.
    """
    from jsonschema import ValidationError
    from jsonschema.validators import extend
    from jsonschema_specifications import REGISTRY

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

    own = {
        "pattern": pattern,
        "patternProperties": of_patterns,
        "additionalProperties": additional,
    }
    if isinstance(schema, Mapping):
        # A reference to the root would ask for the dialect's own validator again.
        schema = {key: value for key, value in schema.items() if key != "$schema"}
    return extend(draft, own)(schema, registry=REGISTRY, format_checker=_format_checker(formats))


def _format_checker(names: Collection[str]) -> Any:
    from jsonschema import FormatChecker

    checker = FormatChecker([name for name in FORMATS if name in names])
    # As the lm-evaluation-harness has them.
    readers: dict[str, Callable[[str], object]] = {
        "ipv4": ipaddress.IPv4Address,
        "ipv6": ipaddress.IPv6Address,
        "uuid": uuid.UUID,
    }
    for name in readers.keys() & checker.checkers.keys():
        read = readers[name]
        checker.checks(name, raises=ValueError)(
            lambda value, read=read: not isinstance(value, str) or bool(read(value))
        )
    return checker


def _found(pattern: str, text: str, deadline: Deadline) -> bool:
    return _in_time(_searched(pattern).search, text, deadline) is not None


@lru_cache(maxsize=1024)
def _searched(pattern: str) -> Any:
    import regex
    from jsonschema import SchemaError

    try:
        return regex.compile(_written(pattern, _spaces()), regex.ASCII)
    except regex.error as error:
        raise SchemaError(f"{pattern!r} is no regular expression: {error}") from None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    import regex

    # In free spacing, the characters of comments mean nothing.
    free = re.search(r"\(\?[a-z]*x", pattern) is not None
    return regex.compile(pattern if free else _written(pattern, {}), regex.ASCII)


def _in_time(match: Any, text: str, deadline: Deadline, start: int = 0) -> Any:
    deadline.check()
    try:
        return match(text, start, timeout=None if isinf(deadline.left) else deadline.left)
    except TimeoutError:
        raise Undecided from None


@cache
def _spaces() -> dict[str, str]:
    """`\\s` and `\\S` of ECMA-262 (WhiteSpace and LineTerminator) as members of a class."""

    def is_space(code: int) -> bool:
        one = chr(code)
        return one in "\t\n\v\f\r\u2028\u2029\ufeff" or unicodedata.category(one) == "Zs"

    # No plane but the first has any.
    members = {r"\s": "", r"\S": r"\U00010000-\U0010ffff"}
    for among, group in groupby(range(0x10000), is_space):
        codes = list(group)
        members[r"\s" if among else r"\S"] += f"\\U{codes[0]:08x}-\\U{codes[-1]:08x}"
    return members


def _written(pattern: str, members: dict[str, str]) -> str:
    """A pattern of Python's for the `regex` package, where `{e}` counts errors and sets nest;
    `members`: what escapes of whole classes stand for."""
    parts, at, inside = [], 0, False
    while at < len(pattern):
        escape = _ESCAPE.match(pattern, at)
        one = new = escape[0] if escape else pattern[at]
        if one in members:
            new = members[one] if inside else f"[{members[one]}]"
        elif inside:
            inside = one != "]"
            new = r"\[" if one == "[" else one
        elif found := _CLASS.match(pattern, at):
            one = new = found[0]
            inside = True
        elif found := _COMMENT.match(pattern, at):
            one = new = found[0]
        elif one == "$":
            new = r"\Z"
        elif one == "{" and not _QUANTIFIER.match(pattern, at):
            new = r"\{"
        parts.append(new)
        at += len(one)
    return "".join(parts)

"""JSON strings as automata; where a schema says more, every character has one spelling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from dllm.clock import Deadline
from dllm.constraints.automaton import (
    ByteRange,
    Dfa,
    Nfa,
    concatenation,
    determinise,
    intersection,
    repetition,
)
from dllm.constraints.errors import EmptyLanguage, GrammarError, Unspelled
from dllm.constraints.regex import LAST, Encode, compile_pattern, compile_search, utf8


QUOTE, BACKSLASH = 0x22, 0x5C
MAX_LENGTH = 256
"""Longest string where a length is counted: each character costs states."""

ANY = (
    r'([^"\\\x00-\x1f]|\\(["\\/bfnrt]'
    r"|u([0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})))*"
)

_TIME = (
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
# Day 29 to 31 only in months that always have it.
_DATE = (
    # There is no year 0000 for Python.
    r"([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    r"|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
)
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,4}}"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "email": rf"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_HOST}",
    "hostname": _HOST,
    "ipv4": rf"({_BYTE}\.){{3}}{_BYTE}",
    "ipv6": r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "uri": rf"[a-z][a-z0-9+.-]*://{_HOST}(:[0-9]{{1,4}})?(/[A-Za-z0-9._~%/-]*)?",
}
"""Formats that are enforced; others are notes, as in the standard."""


def characters(low: int, high: int) -> list[tuple[ByteRange, ...]]:
    """How the code points low..high are spelled inside a JSON string, one spelling each.

    Control characters have none: nobody misses them, and their escapes are many.
    """
    found = [((0x5C, 0x5C), (code, code)) for code in (QUOTE, BACKSLASH) if low <= code <= high]
    return [*plain(low, high), *found]


def plain(low: int, high: int) -> list[tuple[ByteRange, ...]]:
    """As `characters`, without those that need an escape."""
    found = []
    for first, last in ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, LAST)):
        found += utf8(max(low, first), min(high, last))
    return found


def texts(
    patterns: Sequence[str],
    formats: Sequence[str],
    least: int,
    most: int | None,
    deadline: Deadline,
) -> Dfa:
    """Contents of strings that match all patterns and formats, with a length in [least, most].

    Raises `GrammarError` for a pattern that is not regular, `EmptyLanguage` if no string is left,
    `Unspelled` if none of those that are left is spelled here.
    """
    if most is not None and least > most:
        raise EmptyLanguage(f"no string has a length in [{least}, {most}]")
    known = [name for name in formats if name in FORMATS]
    shortened = None if most is None else min(most, max(least, MAX_LENGTH))
    try:
        parts = [compile_search(pattern, characters, deadline) for pattern in patterns]
        parts += [compile_pattern(FORMATS[name], characters, deadline).dfa for name in known]
        if least or most is not None or not parts:
            parts.append(_of_length(least, shortened, characters if parts else plain))
        return _in_all(parts, deadline)
    except EmptyLanguage:
        if _contradictory(patterns, least, most, deadline):
            raise
        raise Unspelled("format" if known else "pattern") from None


def _of_length(least: int, most: int | None, encode: Encode) -> Dfa:
    return repetition(compile_pattern("(?s:.)", encode).dfa, least, most)


def _in_all(parts: Sequence[Dfa], deadline: Deadline) -> Dfa:
    whole = parts[0]
    for part in parts[1:]:
        whole = intersection(whole, part, deadline)
    return whole


def _contradictory(
    patterns: Sequence[str], least: int, most: int | None, deadline: Deadline
) -> bool:
    """Whether it is sure that no string matches all patterns within the lengths, however it is
    spelled."""
    try:
        parts = [compile_search(pattern, _every, deadline) for pattern in patterns]
        _in_all([*parts, _of_length(least, most, _every)], deadline)
    except EmptyLanguage:
        return True
    except GrammarError:
        return False
    return False


def _every(low: int, high: int) -> list[tuple[ByteRange, ...]]:
    """The code points low..high; one half of a surrogate pair stands for all."""
    halves = ((0xED, 0xED), (0xA0, 0xBF), (0x80, 0xBF))
    return [*utf8(low, high), *([halves] if low <= 0xDFFF and high >= 0xD800 else [])]


@lru_cache(maxsize=1024)
def _search(pattern: str) -> Dfa:
    return compile_search(pattern, utf8)


def matches(pattern: str, text: str) -> bool:
    """Whether a text, not spelled as JSON, matches; no pattern takes exponential time.

    Raises `GrammarError` for a pattern that is not regular.
    """
    return _search(pattern).matches(text.encode())


def quoted(content: Dfa, deadline: Deadline) -> Dfa:
    """The contents in quotes."""
    quote = one_of(['"'], deadline)
    return concatenation([quote, content, quote], deadline)


def one_of(texts_: Iterable[str], deadline: Deadline) -> Dfa:
    """Exactly these texts."""
    nfa = Nfa()
    start, end = nfa.state(), nfa.state()
    for text in texts_:
        nfa.chain(start, end, [(byte, byte) for byte in text.encode()])
    return determinise(nfa, start, {end}, deadline)

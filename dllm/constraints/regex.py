"""Regular expressions -> automata over bytes.

Python's own parser reads the text; what is not regular (back-references, look-around) is refused
by name. Two boundaries that only look one character ahead are kept apart for the engine to enforce:
a final `(?!...)` names characters that may not follow, an initial `(?!(...)\\b)` takes whole words
out. `\\d` and `\\w` mean ASCII, as in ECMA-262, and so does `\\s` in whole matches; in searches,
which are JSON schema's, it is ECMA-262's white space.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any, Literal

from dllm.clock import NEVER, Deadline
from dllm.constraints.automaton import ByteRange, Dfa, Nfa, determinise, difference
from dllm.constraints.errors import GrammarError


CodeRange = tuple[int, int]
"""Lowest and highest code point, both included."""
Encode = Callable[[int, int], Sequence[Sequence[ByteRange]]]
"""A range of code points -> the byte sequences that spell them."""

LAST = 0x10FFFF
DIGITS: tuple[CodeRange, ...] = ((0x30, 0x39),)
WORD: tuple[CodeRange, ...] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: tuple[CodeRange, ...] = ((0x09, 0x0D), (0x20, 0x20))
ECMA_SPACE: tuple[CodeRange, ...] = (
    *SPACE,
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
)
"""ECMA-262, WhiteSpace and LineTerminator."""


@dataclass(frozen=True)
class Pattern:
    """A terminal's language."""

    dfa: Dfa
    not_before: frozenset[int] = frozenset()
    """Bytes that may not follow a match."""


_NAMES: dict[Any, str] = {
    sre.AT: r"an anchor (^, $, \b) at this place",
    sre.ASSERT: "look-around (?=...), (?<=...)",
    sre.ASSERT_NOT: "look-around (?!...), (?<!...)",
    sre.GROUPREF: "a back-reference",
}
"""What people call Python's operations."""
_FLAGS = {"L": re.LOCALE, "m": re.MULTILINE, "u": re.UNICODE}
"""What no engine does."""
_BEGIN = (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)
_END = (sre.AT_END, sre.AT_END_STRING)


def utf8(low: int, high: int) -> list[tuple[ByteRange, ...]]:
    """Byte ranges whose sequences spell the code points low..high; surrogates have no spelling."""
    if low > high:
        return []
    if low < 0xD800 <= high:
        return [*utf8(low, 0xD7FF), *utf8(0xD800, high)]
    if 0xD800 <= low <= 0xDFFF:
        return utf8(0xE000, high)
    for last in (0x7F, 0x7FF, 0xFFFF):
        if low <= last < high:
            return [*utf8(low, last), *utf8(last + 1, high)]
    if high <= 0x7F:
        return [((low, high),)]
    for bits in (6, 12, 18):
        # Where the trailing bytes do not run over their whole range, the range is cut.
        mask = (1 << bits) - 1
        if low >> bits == high >> bits:
            continue
        if low & mask:
            return [*utf8(low, low | mask), *utf8((low | mask) + 1, high)]
        if high & mask != mask:
            return [*utf8(low, (high & ~mask) - 1), *utf8(high & ~mask, high)]
    first, last = chr(low).encode(), chr(high).encode()
    return [tuple(zip(first, last, strict=True))]


def compile_pattern(text: str, encode: Encode = utf8, deadline: Deadline = NEVER) -> Pattern:
    """The language of a regular expression that has to match a whole lexeme.

    Raises `GrammarError` for what is not regular, not valid, too large or has another meaning in
    other dialects, `Undecided` at the deadline.
    """
    parsed = _parse(text, "error")
    items = list(parsed)
    words, follow = None, frozenset()
    if items and items[0][0] is sre.ASSERT_NOT:
        words = _words(items.pop(0)[1], encode, deadline)
    if items and items[-1][0] is sre.ASSERT_NOT:
        follow = _single_bytes(items.pop()[1])
    dfa = _automaton(items, parsed.state.flags, encode, deadline)
    if words is not None:
        dfa = difference(dfa, words, deadline)
    return Pattern(dfa, follow)


def compile_search(text: str, encode: Encode, deadline: Deadline = NEVER) -> Dfa:
    """Texts in which the expression is found anywhere; `^` and `$` bind it to the ends.

    Raises as `compile_pattern`; a class has the one meaning that ECMA-262 gives it.
    """
    parsed = _parse(text, "ignore")
    if parsed.state.flags & re.VERBOSE:
        raise GrammarError(_unsupported("x"))
    nfa = Nfa()
    start, end, found = nfa.state(), nfa.state(), nfa.state()
    builder = _Builder(nfa, encode, parsed.state.flags, deadline, ECMA_SPACE)
    before, rest = builder.anything(start), builder.anything(found)
    for branch, begins, ends in _branches(list(parsed)):
        here = builder.sequence(branch, start if begins else before)
        nfa.empty[here].append(end if ends else found)
    return determinise(nfa, start, {end, rest}, deadline, rest)


def _parse(text: str, ambiguous: Literal["error", "ignore"]) -> Any:
    """`ambiguous`: what to do with `[[` and with `&&`, `--`, `||`, `~~` in a class, which other
    dialects read as sets of sets."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(ambiguous, FutureWarning)
            parsed = parser.parse(text, re.ASCII)
        _check_flags(parsed.state.flags)
        return parsed
    except GrammarError:
        raise
    except FutureWarning as warning:
        named = str(warning).removeprefix("Possible ")
        raise GrammarError(
            f"/{_shown(text)}/ has another meaning in other dialects: {named}; put a \\ before a "
            "character of a class that stands for itself, and write named classes as ranges"
        ) from None
    except (re.error, OverflowError, ValueError) as error:
        raise GrammarError(f"/{_shown(text)}/ is no regular expression: {error}") from None
    except RecursionError:
        raise GrammarError(f"/{_shown(text)}/ is nested too deeply") from None


def _check_flags(flags: int) -> None:
    for name, flag in _FLAGS.items():
        if flags & flag:
            raise GrammarError(_unsupported(name))


def _unsupported(flag: str) -> str:
    return f"the flag {flag} is not supported in a regular expression"


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _automaton(items: Sequence[Any], flags: int, encode: Encode, deadline: Deadline) -> Dfa:
    nfa = Nfa()
    start, end = nfa.state(), nfa.state()
    builder = _Builder(nfa, encode, flags, deadline)
    try:
        # The whole text is matched, so that anchors at its ends say nothing new.
        for branch, _, _ in _branches(list(items)):
            nfa.empty[builder.sequence(branch, start)].append(end)
    except RecursionError:
        raise GrammarError("a regular expression is nested too deeply") from None
    return determinise(nfa, start, {end}, deadline)


def _branches(
    items: list[Any], begins: bool = False, ends: bool = False
) -> list[tuple[list[Any], bool, bool]]:
    """The alternatives of an expression without the anchors at their ends: whether each has to
    stand at the begin, and at the end, of the text."""
    while items and items[0][0] is sre.AT and items[0][1] in _BEGIN:
        begins, items = True, items[1:]
    while items and items[-1][0] is sre.AT and items[-1][1] in _END:
        ends, items = True, items[:-1]
    if len(items) == 1:
        kind, value = items[0]
        if kind is sre.BRANCH:
            return [one for option in value[1] for one in _branches(list(option), begins, ends)]
        if kind is sre.SUBPATTERN and not value[1] and not value[2]:
            return _branches(list(value[3]), begins, ends)
    return [(items, begins, ends)]


def _words(assertion: Any, encode: Encode, deadline: Deadline) -> Dfa:
    """The whole words that an initial `(?!(...)\\b)` takes out."""
    direction, body = assertion
    items = list(body)
    if direction != 1 or not items or items[-1] != (sre.AT, sre.AT_BOUNDARY):
        raise GrammarError("look-ahead is supported as (?!word\\b)... and ...(?![characters]) only")
    return _automaton(items[:-1], body.state.flags, encode, deadline)


def _single_bytes(assertion: Any) -> frozenset[int]:
    """The bytes of the characters that a final `(?![...])` names."""
    direction, body = assertion
    items = list(body)
    if direction != 1 or len(items) != 1:
        raise GrammarError("look-ahead is supported as (?!word\\b)... and ...(?![characters]) only")
    ranges = _characters(items[0], body.state.flags)
    if ranges[-1][1] > 0x7F:
        raise GrammarError("a final (?![characters]) may name ASCII characters only")
    return frozenset(byte for low, high in ranges for byte in range(low, high + 1))


def _characters(item: Any, flags: int, space: Sequence[CodeRange] = SPACE) -> list[CodeRange]:
    """Code points that one item of the parsed expression matches."""
    kind, value = item
    if kind is sre.LITERAL:
        found = [(value, value)]
    elif kind is sre.NOT_LITERAL:
        return complement(_folded([(value, value)], flags))
    elif kind is sre.ANY:
        return [(0, LAST)] if flags & re.DOTALL else complement([(0x0A, 0x0A)])
    elif kind is sre.IN:
        negated = value[0][0] is sre.NEGATE
        found = [pair for part in value[negated:] for pair in _class_member(part, space)]
        found = _folded(found, flags)
        return complement(found) if negated else _merged(found)
    else:
        name = _NAMES.get(kind, str(kind).lower())
        raise GrammarError(f"{name} is not supported in a regular expression")
    return _folded(found, flags)


def _class_member(part: Any, space: Sequence[CodeRange]) -> list[CodeRange]:
    kind, value = part
    if kind is sre.LITERAL:
        return [(value, value)]
    if kind is sre.RANGE:
        return [value]
    positive = {
        sre.CATEGORY_DIGIT: DIGITS,
        sre.CATEGORY_WORD: WORD,
        sre.CATEGORY_SPACE: space,
    }
    negative = {
        sre.CATEGORY_NOT_DIGIT: DIGITS,
        sre.CATEGORY_NOT_WORD: WORD,
        sre.CATEGORY_NOT_SPACE: space,
    }
    if value in positive:
        return list(positive[value])
    return complement(list(negative[value]))


def _folded(ranges: list[CodeRange], flags: int) -> list[CodeRange]:
    """With the other case of ASCII letters where case is ignored."""
    if not flags & re.IGNORECASE:
        return ranges
    found = list(ranges)
    for low, high in ranges:
        for first, last, shift in ((0x41, 0x5A, 32), (0x61, 0x7A, -32)):
            a, b = max(low, first), min(high, last)
            if a <= b:
                found.append((a + shift, b + shift))
    return _merged(found)


def _merged(ranges: Sequence[CodeRange]) -> list[CodeRange]:
    merged: list[CodeRange] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def complement(ranges: Sequence[CodeRange]) -> list[CodeRange]:
    gaps, start = [], 0
    for low, high in _merged(ranges):
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    return [*gaps, (start, LAST)] if start <= LAST else gaps


class _Builder:
    """Thompson's construction."""

    def __init__(
        self,
        nfa: Nfa,
        encode: Encode,
        flags: int,
        deadline: Deadline,
        space: Sequence[CodeRange] = SPACE,
    ) -> None:
        self.nfa, self.encode, self.flags, self.deadline = nfa, encode, flags, deadline
        self.space = space

    def anything(self, here: int) -> int:
        """Any text, line breaks included."""
        state = self.nfa.state()
        self.nfa.empty[here].append(state)
        self.nfa.choice(state, state, self.encode(0, LAST))
        return state

    def sequence(self, items: Sequence[Any], here: int) -> int:
        for item in items:
            here = self.item(item, here)
        return here

    def item(self, item: Any, here: int) -> int:
        self.deadline.check()
        kind, value = item
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, body = value
            return self.repeat(least, most, body, here)
        if kind is sre.SUBPATTERN:
            _, add, remove, body = value
            _check_flags(add)
            if add & re.VERBOSE and self.space is ECMA_SPACE:
                raise GrammarError(_unsupported("x"))
            flags = (self.flags | add) & ~remove
            inner = _Builder(self.nfa, self.encode, flags, self.deadline, self.space)
            return inner.sequence(body, here)
        end = self.nfa.state()
        if kind is sre.BRANCH:
            for option in value[1]:
                self.nfa.empty[self.sequence(option, here)].append(end)
            return end
        found = _characters(item, self.flags, self.space)
        self.nfa.choice(here, end, (path for low, high in found for path in self.encode(low, high)))
        return end

    def repeat(self, least: int, most: Any, body: Any, here: int) -> int:
        for _ in range(least):
            here = self.sequence(body, here)
        if most is sre.MAXREPEAT:
            state = self.nfa.state()
            self.nfa.empty[here].append(state)
            self.nfa.empty[self.sequence(body, state)].append(state)
            return state
        ends = [here]
        for _ in range(most - least):
            # A state of its own in between: an empty body must not loop back into the part before.
            here = self.sequence(body, here)
            ends.append(here)
        end = self.nfa.state()
        for state in ends:
            self.nfa.empty[state].append(end)
        return end

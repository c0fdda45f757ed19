"""Regular expressions as byte automata, against Python's own matcher."""

import random
import re

import pytest

from dllm.constraints.errors import GrammarError
from dllm.constraints.regex import compile_pattern, compile_search, utf8


ALPHABET = 'ab01c."\\-eEé ü+@x\nABy'
PATTERNS = (
    "a*b",
    "(a|b)*abb",
    r'[^"\\]*',
    r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?",
    "a{2,4}",
    "(ab?){1,3}c?",
    "é+",
    "[à-ü]x",
    "(?i:aB)c",
    "a.c",
    "(a*)*b",
    "(|a)b",
    "x{0}y",
    r"[\w.-]+@\D",
)
MANY = "|".join(f"{a}{b}{c}" for a in "ab01" for b in "ab" for c in "ab1eE")
"""Each of which may be found, or not, before the others."""


def texts(count: int) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(ALPHABET, k=rng.randint(0, 6))) for _ in range(count)]


@pytest.mark.parametrize("pattern", [*PATTERNS, r"^a|b\Z", "^(^ab$|a+)$"])
def test_whole_matches(pattern: str) -> None:
    dfa, python = compile_pattern(pattern).dfa, re.compile(pattern, re.ASCII)
    for text in [*texts(1000), "abb", "-1.5e+3", "aaa", "ababc", "éé", "üx", "ABc", "a@b"]:
        assert dfa.matches(text.encode()) == bool(python.fullmatch(text)), text


@pytest.mark.parametrize("pattern", [*PATTERNS, r"^a|b\Z", r"^(ab|c)\Z", r"a\Z|^b", r"^\Z", MANY])
def test_searches(pattern: str) -> None:
    dfa, python = compile_search(pattern, utf8), re.compile(pattern, re.ASCII)
    for text in texts(500):
        assert dfa.matches(text.encode()) == bool(python.search(text)), text


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 0x10FFFF), (0x80, 0x900), (0x7F0, 0x901), (0xD700, 0xE100), (0xFFF0, 0x10FFF)],
)
def test_utf8_spells_exactly_the_range(low: int, high: int) -> None:
    spellings = utf8(low, high)
    for code in [*range(max(low - 5, 0), low + 300), *range(high - 300, min(high + 6, 0x110000))]:
        if 0xD800 <= code <= 0xDFFF:
            continue
        spelled = chr(code).encode()
        matching = [
            ranges
            for ranges in spellings
            if len(ranges) == len(spelled)
            and all(a <= byte <= b for (a, b), byte in zip(ranges, spelled, strict=True))
        ]
        assert len(matching) == (low <= code <= high)


@pytest.mark.parametrize("text", ["(", "a{99999999999}", "(?<=a)b", "(" * 3000 + ")" * 3000])
def test_what_is_not_regular_is_refused(text: str) -> None:
    with pytest.raises(GrammarError):
        compile_pattern(text)


def test_classes_of_many_ranges_share_what_their_spellings_end_with() -> None:
    dfa = compile_search(r"^\S{0,1300}$", utf8)
    assert dfa.matches("é漢a".encode() * 300) and not dfa.matches(b"a" * 1301)
    assert not dfa.matches("a\u2003".encode())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[:alpha:]]", "nested set at position 1"),
        ("x[a&&b]", "set intersection at position 3"),
        ("[a--b]", "set difference at position 2"),
        ("[a||b]", "set union at position 2"),
        ("[a~~b]", "set symmetric difference at position 2"),
    ],
)
def test_what_dialects_read_in_different_ways_is_refused(text: str, named: str) -> None:
    with pytest.raises(GrammarError, match=f"has another meaning in other dialects: {named}"):
        compile_pattern(text)


def test_a_class_of_a_search_has_the_meaning_of_ecma_262() -> None:
    dfa = compile_search("^[[a&&b]$", utf8)
    assert [one for one in "[a&b]" if dfa.matches(one.encode())] == ["[", "a", "&", "b"]

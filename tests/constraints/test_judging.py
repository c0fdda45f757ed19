"""The judge of finished answers: in bounded time, and of the engines' opinion."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from dllm import judging
from dllm.clock import NEVER, Deadline, Undecided
from dllm.constraints.automaton import Dfa
from dllm.constraints.errors import GrammarError
from dllm.constraints.languages import JsonSchema, LarkText, Regex
from dllm.constraints.regex import compile_pattern, compile_search, utf8


CHARACTERS = [*map(chr, range(0x250)), *"\u1680\u2003\u2022\u2028\u202f\u3000\ufeff٣ſK漢"]
PUNCTUATION = "!\"#%&',-/:;<=>@`~ .^$*+?{}[]|()\\"
NESTED = "^((a+)+b|a{31})$"
SLOW = "(a|aa)+"
"""Exponential even for a matcher that remembers failures."""


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"[^\w]", r"[^\S]", r"[\s\d]", r"\[", "[a[]"),
        *(r"\N{BULLET}", r"[\N{BULLET}-\u2028]", r"\N{NULL}", "(?#[)[a]", "(?#{)[a]"),
        r"(?:\x41|\u00e9|\U000000e8|\103|\0|\07|\a|\f|\v|\n|\é|\_)",
        r"[\x41-\u0045\U000000e8\107\0\07\b\a\f\v\n\é\_]",
        "|".join(rf"\{one}" for one in PUNCTUATION).join(["(?:", ")"]),
        "".join(rf"\{one}" for one in PUNCTUATION).join("[]"),
        *("[]{]", "[^]a-z]", "(?i)[G-à]", "(?i:é)", "(?i)ſ", "(?s).", "(?s:.)", "(?a)."),
    ],
)
@pytest.mark.parametrize("engine", ["search", "whole"])
def test_engine_and_judge_agree_on_every_character(pattern: str, engine: str) -> None:
    dfa: Dfa
    if engine == "search":
        bound = pattern if re.match(r"\(\?[a-z]\)", pattern) else f"^{pattern}$"
        dfa = compile_search(bound, utf8)
        schema: Mapping[str, Any] = {"pattern": bound}
        language: Any = JsonSchema(json.dumps(schema), False)
    else:
        dfa, language = compile_pattern(pattern).dfa, Regex(pattern)
    for one in CHARACTERS:
        text = json.dumps(one) if engine == "search" else one
        assert dfa.matches(one.encode()) == (language.complaint(text) is None), one


@pytest.mark.parametrize("pattern", ["a{e}", "x{s<=1}", "{i}", "a{2}", "a{,2}", "[a{e}]"])
def test_braces_mean_what_they_mean_to_python(pattern: str) -> None:
    for text in ("a", "b", "aa", "a{e}", "{i}", "x{s<=1}", ""):
        judged = judging.fully_matched(pattern, text, Deadline.after(9))
        assert judged == bool(re.fullmatch(pattern, text)), text


def test_the_outsider_s_schema_is_judged() -> None:
    schema = {"enum": ["a" * 31], "pattern": NESTED}
    assert JsonSchema(json.dumps(schema), False).complaint(json.dumps("a" * 31)) is None
    assert Regex(NESTED).complaint("a" * 31) is None
    assert Regex(NESTED).complaint("a" * 30) == "not matched by the regular expression"


def test_what_takes_too_long_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LIMIT", 0.05)
    text = "a" * 60 + "b"
    assert "not judged within" in str(Regex(SLOW).complaint(text))
    for schema in (
        {"pattern": f"^{SLOW}$"},
        {"patternProperties": {f"^{SLOW}$": {}}},
        {"patternProperties": {f"^{SLOW}$": {}}, "additionalProperties": False},
    ):
        value = text if "pattern" in schema else {text: 1}
        language = JsonSchema(json.dumps(schema), False)
        assert "not judged within" in str(language.complaint(json.dumps(value)))


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        # A terminal, many ways to cut a text into terminals, many derivations.
        (rf"start: /^{SLOW}$/", "a" * 60 + "b"),
        ("start: A+\nA: /a+/\n", "a" * 3000),
        ('start: start start start | "a"', "a" * 400),
    ],
)
def test_a_grammar_that_takes_too_long_ends_in_one_line(
    grammar: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "LIMIT", 0.05)
    language = LarkText(grammar, "start")
    assert "not judged within" in str(language.complaint(text))
    # The limit is each answer's own.
    monkeypatch.setattr(judging, "LIMIT", 9)
    assert language.complaint("a") is None
    assert "no sentence of the grammar" in str(language.complaint("b"))


@pytest.mark.parametrize("text", ["NaN", '{"a": -Infinity}', "[" * 5000 + "]" * 5000])
def test_what_is_no_json_is_one_line(text: str) -> None:
    assert "not valid JSON" in str(JsonSchema("{}", False).complaint(text))


def test_formats_are_judged_where_they_are_enforced() -> None:
    for name, good, bad in (
        ("date", "2024-02-28", "2024-02-30"),
        ("uuid", "12345678-1234-1234-1234-123456789abc", "1"),
    ):
        language = JsonSchema(json.dumps({"format": name}), False)
        assert language.complaint(json.dumps(good)) is None
        assert "not valid by the schema" in str(language.complaint(json.dumps(bad)))
        assert language.complaint("5") is None
    assert JsonSchema('{"format": "regex"}', False).complaint('"("') is None


def test_a_limit_that_has_passed_is_one() -> None:
    with pytest.raises(Undecided):
        judging.fully_matched("a", "a", Deadline.after(-1))


DIALECT = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"pattern": r"^\W$"}, "é", "e"),
        ({"pattern": r"^\s$"}, "\u2003", "\x1c"),
        ({"pattern": "^a$"}, "a", "a\n"),
        ({"patternProperties": {r"^\W": {"type": "null"}}}, {"é": None}, {"é": 1}),
        (
            {"patternProperties": {r"^\W": {}}, "additionalProperties": False},
            {"é": 1},
            {"e": 1},
        ),
        (
            {"patternProperties": {r"^\W": {}}, "additionalProperties": {"type": "null"}},
            {"é": 1, "e": None},
            {"e": 1},
        ),
        # A reference to the root, whose dialect is named, keeps the meaning.
        (
            {"$schema": DIALECT, "pattern": r"^\W$", "items": {"$ref": "#"}},
            ["é", ["ü"]],
            ["é", ["u"]],
        ),
        (False, None, 1),
    ],
)
def test_schemas_are_judged_with_the_same_meaning(schema: Any, good: Any, bad: Any) -> None:
    language = JsonSchema(json.dumps(schema), False)
    if schema is not False:
        assert language.complaint(json.dumps(good)) is None
    assert "not valid by the schema" in str(language.complaint(json.dumps(bad)))


def test_a_grammar_s_terminals_have_one_meaning() -> None:
    language = LarkText(r"start: /\W\s/", "start")
    (terminal,) = language.grammar(NEVER).terminals.values()
    for text in ("é ", "e ", "é\u2003"):
        assert terminal.dfa.matches(text.encode()) == (language.complaint(text) is None)


@pytest.mark.parametrize("flag", ["L", "m", "u", "x"])
@pytest.mark.parametrize("form", ["(?{})a", "(?{}:a)", "b(?i{}:a)"])
def test_flags_that_no_engine_knows_are_refused(flag: str, form: str) -> None:
    with pytest.raises(GrammarError):
        compile_search(form.format(flag), utf8)
    if flag != "x":
        with pytest.raises(GrammarError):
            compile_pattern(form.format(flag))


@pytest.mark.parametrize(
    "pattern", ["(?x)a b # [", "(?x: a\tb )", "(?is)a.", "(?a)(?i:A)b", "(?-i:ab)"]
)
def test_flags_that_the_engine_knows(pattern: str) -> None:
    dfa = compile_pattern(pattern).dfa
    for text in ("ab", "aB", "a b", "a\n", "Ab"):
        assert dfa.matches(text.encode()) == (Regex(pattern).complaint(text) is None), text

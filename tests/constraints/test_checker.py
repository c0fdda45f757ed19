"""Partial texts that a grammar can or cannot complete, against published examples and against an
intersection worked out in another way."""

import random
import re
import time
from collections.abc import Iterator

import pytest
from intersections import completable

from dllm.clock import NEVER, Deadline
from dllm.constraints.checker import Checker, Hole, Piece, Verdict, joined
from dllm.constraints.completion import shortest_completion
from dllm.constraints.endings import Endings
from dllm.constraints.errors import EmptyLanguage, GrammarError
from dllm.constraints.grammar import read_lark


OBJECT = r"""
start: "{" [pair ("," pair)*] "}"
pair: STRING ":" NUMBER
STRING: /"[^"]*"/
NUMBER: /0|[1-9][0-9]*/
%ignore /[ \t\r\n]+/
"""


def pieces(text: str) -> tuple[list[Piece], bool]:
    """`_` = any text, a number in angle brackets = so many characters, `$` = the end."""
    ended = text.endswith("$")
    found: list[Piece] = []
    for part in text.removesuffix("$").replace("_", "\0_\0").split("\0"):
        if part:
            found.append(Hole() if part == "_" else part.encode())
    return found, ended


@pytest.fixture(scope="module")
def objects() -> Checker:
    return Checker.of(read_lark(OBJECT), 32)


@pytest.mark.parametrize(
    "text",
    [
        r"{_}",
        r"{_:",
        r"{_}_$",
        r"{_$",
        r'{"a"_}$',
        r'{"a":1_}$',
        r'{"a":_"b"_}$',
        r'{"a":1_2_3}$',
        r'_":1}$',
        r"_,_$",
        r"__$",
        r"_1_1_",
        r'{"a"_,}_',
        r'{"a"_,}"_$',
        r'{"a":1_"_',
        r"_}{_",
        r'{"é":1}$',
    ],
)
def test_texts_that_can_be_completed(objects: Checker, text: str) -> None:
    assert objects.completable(*pieces(text)) is Verdict.YES


@pytest.mark.parametrize(
    "text",
    ["}_", "1_", '{"a"1_', '{"a":1"_', '{"a":01_', "{_:$", '{_"$', '{_"}$', '"_$', '{"a"_,}$'],
)
def test_texts_that_cannot_be_completed(objects: Checker, text: str) -> None:
    assert objects.completable(*pieces(text)) is Verdict.NO


LEXEMES = r"""
STRING: /"[^"\n\r]*"/
NUMBER: /-?[1-9][0-9]*|0/
NULL: "null"
%ignore /[ \t\r\n]+/
"""


@pytest.mark.parametrize(
    ("text", "sequence", "valid"),
    [
        # a piece of text may be read as pieces of several lexemes, begun or ended elsewhere
        ('_null" $', "STRING", True),
        ('null" _$', "NULL STRING", True),
        ('_null" $', "NULL", False),
        ("_test_$", "STRING", True),
        ("_test_$", "NUMBER", False),
        ("_ _$", "STRING", True),
        ("_123_$", "STRING", True),
        ("_123_$", "NUMBER", True),
        ("123_$", "NUMBER", True),
        ("123_$", "STRING", False),
        ('_lhio! " : 123, "_$', 'STRING ":" NUMBER "," STRING', True),
        ('_lhio! " : 123, "_$', 'NUMBER ":" NUMBER "," STRING', False),
        # and a lexeme may go on over several gaps
        ("nu_ll$", "NULL", True),
        ("nul_ull$", "NULL", False),
        ("nul_ull$", "NULL NULL", True),
        ("n_u_l$", "NULL", True),
        ("n_ll_l$", "NULL", False),
        ("nul_l_l$", "NULL", False),
        ("n_l_ll$", "NULL", False),
        ('"hiii_ello"$', "STRING", True),
        ("123_456_789_$", "NUMBER", True),
        ("123_456_789_$", "NUMBER NUMBER NUMBER", True),
    ],
)
def test_pieces_of_lexemes(text: str, sequence: str, valid: bool) -> None:
    checker = Checker.of(read_lark(f"start: {sequence}\n{LEXEMES}"), 8)
    answer = checker.completable(*pieces(text))
    assert answer is (Verdict.YES if valid else Verdict.NO)


@pytest.mark.parametrize(
    ("count", "valid"), [(0, False), (1, False), (2, False), (3, True), (4, True), (5, True)]
)
def test_a_counted_hole_holds_exactly_so_many_characters(
    objects: Checker, count: int, valid: bool
) -> None:
    # `{`, hole, `1}`: the shortest filling is `"":`.
    answer = objects.completable([b"{", Hole(count), b"1}"], True)
    assert answer is (Verdict.YES if valid else Verdict.NO)


def test_characters_of_several_bytes_count_once() -> None:
    checker = Checker.of(read_lark("start: /[é€]/"), 4)
    assert checker.completable([Hole(1)], True) is Verdict.YES
    assert checker.completable([Hole(2)], True) is Verdict.NO
    assert checker.completable(["é".encode()[:1], Hole()], True) is Verdict.YES
    assert checker.completable([Hole(), "é".encode()[1:]], True) is Verdict.YES
    assert checker.completable([Hole(), b"\xaa"], True) is Verdict.NO


WORDS = r"""
start: "return" WS e ";" | e ";"
e: ID | NUMBER
ID: /(?!(return|if)\b)[A-Za-z_][A-Za-z0-9_]*(?![A-Za-z0-9_])/
NUMBER: /[0-9]+(?![A-Za-z0-9_])/
WS: /[ ]+/
"""


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *((text, True) for text in ("return x;", "returnx;", "ret_;", "return_;", "i_f;")),
        *((text, False) for text in ("return;", "12x;", "1_x;", "if;")),
    ],
)
def test_words_end_where_no_letter_follows(text: str, valid: bool) -> None:
    checker = Checker.of(read_lark(WORDS), 8)
    found, _ = pieces(text)
    assert checker.completable(found, True) is (Verdict.YES if valid else Verdict.NO)


def test_words_end_where_no_letter_follows_with_ignored_text() -> None:
    text = WORDS.replace('"return" WS e', '"return" e') + "%ignore WS\n"
    checker = Checker.of(read_lark(text), 8)
    assert checker.completable([b"12 ;"], True) is Verdict.YES
    assert checker.completable([b"12x;"], True) is Verdict.NO
    assert checker.completable([b"returnx;"], True) is Verdict.YES


PATTERNS = ("a+", "ab?", "[ab]c*", "(ab)+", "b{1,2}", "c|aa", "[^a]")


def random_grammar(rng: random.Random) -> str:
    names = ["start", *(f"n{i}" for i in range(rng.randint(0, 3)))]
    patterns = rng.random() < 0.4
    lines = []
    for name in names:
        bodies = set()
        for _ in range(rng.randint(1, 4)):
            body = []
            for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4))):
                if rng.random() < 0.5:
                    body.append(rng.choice(names))
                elif patterns and rng.random() < 0.5:
                    body.append(f"/{rng.choice(PATTERNS)}/")
                else:
                    body.append(f'"{rng.choice("abc")}"')
            bodies.add(" ".join(body))
        lines.append(f"{name}: {' | '.join(sorted(bodies))}")
    if rng.random() < 0.15:
        lines.append('%ignore "c"')
    return "\n".join(lines) + "\n"


def random_pieces(rng: random.Random) -> list[Piece]:
    found: list[Piece] = []
    for _ in range(rng.randint(0, 5)):
        kind = rng.random()
        if kind < 0.5:
            found.append("".join(rng.choices("abc", k=rng.randint(1, 4))).encode())
        else:
            found.append(Hole(rng.randint(1, 4)) if kind < 0.75 else Hole())
    return found


def endings_agree(checker: Checker, canvas: list[Piece]) -> bool:
    """Whether what is said of a text's ends is what a counted hole at its end says."""
    frame = checker.chart.initial
    for piece in joined(canvas):
        following = checker.after(frame, piece)
        if following is None:
            return True
        frame = following
    ends = Endings(checker.chart, checker.lengths).of(frame)
    expected = [frame.root]
    for count in range(1, 7):
        after = checker.after(frame, Hole(count))
        expected.append(after is not None and after.root)
    return [bool(ends >> count & 1) for count in range(7)] == expected


@pytest.mark.parametrize("seed", range(4))
def test_random_grammars_ambiguous_cyclic_and_nullable_ones_among_them(seed: int) -> None:
    rng = random.Random(seed)
    answers = []
    while len(answers) < 500:
        text = random_grammar(rng)
        try:
            grammar = read_lark(text)
        except EmptyLanguage:
            continue
        checker = Checker.of(grammar, 24)
        for _ in range(10):
            canvas, ended = random_pieces(rng), rng.random() < 0.7
            expected = completable(grammar, canvas, ended, b"abc")
            answers.append(expected)
            found = checker.completable(canvas, ended) is Verdict.YES
            assert found == expected, (text, canvas, ended)
            assert endings_agree(checker, canvas), (text, canvas)
    assert {True, False} == set(answers)


def fillings(total: int, holes: int) -> Iterator[tuple[int, ...]]:
    """Ways to share out so many characters among the holes."""
    if holes == 0:
        yield from ((),) if total == 0 else ()
        return
    for first in range(total + 1):
        for rest in fillings(total - first, holes - 1):
            yield first, *rest


def test_completions_are_valid_and_the_shortest() -> None:
    rng = random.Random(5)
    found = []
    while len(found) < 60:
        try:
            grammar = read_lark(random_grammar(rng))
        except EmptyLanguage:
            continue
        checker = Checker.of(grammar, 24)
        canvas = [p if isinstance(p, bytes) else Hole() for p in random_pieces(rng)]
        text = shortest_completion(checker.chart.tables, canvas, NEVER)
        verdict = checker.completable(canvas, True)
        assert (verdict is Verdict.YES) is (text is not None), (grammar, canvas)
        if text is None:
            continue
        found.append(text)
        assert checker.completable([text], True) is Verdict.YES
        pattern = b"".join(b".*" if isinstance(p, Hole) else re.escape(p) for p in canvas)
        assert re.fullmatch(pattern, text)
        added = len(text) - sum(len(p) for p in canvas if isinstance(p, bytes))
        holes = [i for i, piece in enumerate(canvas) if isinstance(piece, Hole)]
        for counts in fillings(added - 1, len(holes)) if 0 < added < 5 else ():
            exact = list(canvas)
            for i, count in zip(holes, counts, strict=True):
                exact[i] = Hole(count) if count else b""
            assert checker.completable(exact, True) is Verdict.NO, (grammar, canvas, text)
    assert len(set(found)) > 20


def test_an_answer_too_late_is_unknown(objects: Checker) -> None:
    checker = Checker.of(read_lark(OBJECT), 32)
    assert checker.completable([b"{", Hole()], True, Deadline.after(-1)) is Verdict.UNKNOWN
    # and nothing half worked out is kept
    assert checker.completable([b"{", Hole()], True) is Verdict.YES


def test_other_work_of_the_machine_makes_no_answer_late() -> None:
    deadline = Deadline.after(0.05)
    time.sleep(0.1)
    deadline.check()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("start: start", "no text can be derived from the start symbol start"),
        ('start: "a" n', "Rule 'n' used but not defined"),
        ('begin: "a"', "start"),
        ("start: /a(?=b)/", "look-around .* is not supported"),
        (r"start: /(a)\1/", "a back-reference is not supported"),
        ("start: A\nA: /a*/", "zero-width"),
        ("start: /(a|b)*a(a|b){30}/", "more than 50000 automaton states"),
    ],
)
def test_grammars_that_cannot_be_used(text: str, complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint):
        read_lark(text)

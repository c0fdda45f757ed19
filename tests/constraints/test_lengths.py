"""Lengths of lexemes, worked out per state, against walks of sets of states."""

import pytest

from dllm.clock import NEVER
from dllm.constraints.chart import Chart
from dllm.constraints.grammar import read_lark
from dllm.constraints.lengths import Lengths
from dllm.constraints.tables import Tables
from dllm.constraints.units import characters


LONGEST = 12
PATTERNS = [
    "a+",
    "(ab)*c",
    "(abc|de)+x?",
    "[a-c]{2,5}",
    "a(b|cd)*",
    "(a{3}|b{2})*z",
    "x|yé*",
    "(ab?)+",
]


@pytest.fixture(params=PATTERNS)
def lengths(request: pytest.FixtureRequest) -> Lengths:
    tables = Tables.of(read_lark(f"start: /{request.param}/"))
    chart = Chart(tables)
    return Lengths(tables, chart.lexer, characters(tables), LONGEST, NEVER)


def test_lengths_are_those_of_a_walk(lengths: Lengths) -> None:
    (terminal,) = lengths._tables.terminals
    following, accepting = characters(lengths._tables), terminal.dfa.accepting

    def walk(state: int) -> list[set[int]]:
        sets = [{state}]
        for _ in range(LONGEST):
            sets.append({to for at in sets[-1] for to in following(0, at)})
        return sets

    found = {state: lengths.reversed(bits) for state, bits in lengths.within[0]}
    from_start = walk(0)
    for state in range(len(accepting)):
        reached = sum(1 << n for n in range(1, LONGEST + 1) if state in from_start[n])
        assert found.get(state, 0) == reached
        lexemes = lengths._lexer.intern(frozenset({(0, state)}))
        assert lexemes is not None
        may_end = [any(accepting[at] for at in states) for states in walk(state)]
        ends = sum(1 << n for n, yes in enumerate(may_end) if n and yes)
        assert lengths.ends(lexemes).get(0, 0) == ends


def test_a_long_lexeme_leaves_no_sets_behind() -> None:
    tables = Tables.of(read_lark("start: /[a-z]{1,200}/"))
    chart = Chart(tables)
    lengths = Lengths(tables, chart.lexer, characters(tables), 200, NEVER)
    start = chart.lexer.start([0])
    assert start is not None and lengths.ends(start) == {0: (1 << 201) - 2}
    assert len(chart.lexer._known) == 1

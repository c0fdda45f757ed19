"""Sets of lengths as integers: bit n says that length n is possible.

How long the texts of each symbol can be, in bytes, characters or tokens, is worked out once per
grammar; a gap of exactly n units is then decided by shifts instead of n frames.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import reduce
from operator import or_

from dllm.clock import NEVER, Deadline
from dllm.constraints.lexer import Lexemes, Lexer
from dllm.constraints.tables import END, Tables


Successors = Callable[[int, int], Collection[int]]
"""(terminal, state) -> the states reached by exactly one unit of a gap."""


def bits(lengths: int) -> Iterator[int]:
    """The lengths of a set, ascending."""
    while lengths:
        low = lengths & -lengths
        yield low.bit_length() - 1
        lengths ^= low


def sums(left: int, right: int, mask: int) -> int:
    """Every sum of a length of `left` and one of `right`, within the mask."""
    if not left or not right:
        return 0
    if not right & (right - 1):
        left, right = right, left
    if not left & (left - 1):  # one length
        return right << left.bit_length() - 1 & mask
    lowest, low = left & -left, right & -right
    if left + lowest > mask or right + low > mask:
        # Everything from one length on: of the other only its shortest counts.
        return mask & -(low * lowest)
    if left.bit_count() > right.bit_count():
        left, right = right, left
    found = 0
    for n in bits(left):
        found |= right << n
    return found & mask


class Lengths:
    """Lengths of symbols, of the parts of rules before the dot, and of lexemes in progress.

    Lengths above `longest` are left out. `successors` says what a unit is; `deadline` is for the
    construction.
    """

    def __init__(
        self,
        tables: Tables,
        lexer: Lexer,
        successors: Successors,
        longest: int,
        deadline: Deadline,
    ) -> None:
        self.longest = longest
        self.mask = (1 << longest + 1) - 1
        self._tables, self._lexer, self._successors = tables, lexer, successors
        self._deadline = deadline
        self._ends: dict[Lexemes, dict[int, int]] = {}
        self._endings: list[dict[int, int]] = [{} for _ in tables.terminals]
        """Per terminal and state: after how many units, at least 1, it may end."""
        self._units: dict[Lexemes, Lexemes | None] = {}
        self.within = [self._states(t) for t in range(len(tables.terminals))]
        """Per terminal: (state, lengths of at least 1 that lead to it), reversed as `before`."""
        self.symbol = self._symbols()
        """Per symbol: lengths of its texts."""
        self.before = [self.reversed(lengths) for lengths in self._prefixes()]
        """Per dotted rule: lengths of the part before the dot, reversed: bit longest - n."""
        self.rest = self._suffixes()
        """Per dotted rule: lengths of the part after the dot."""
        self._deadline = NEVER

    def reversed(self, lengths: int) -> int:
        """Bit `longest` - n for bit n."""
        return int(format(lengths, f"0{self.longest + 1}b")[::-1], 2)

    def starts(self, reversed_lengths: int, end: int) -> int:
        """The counts from which one of the lengths leads to the count `end`."""
        return reversed_lengths >> (self.longest - end)

    def after(self, lexemes: Lexemes, count: int) -> Lexemes | None:
        """The lexemes in progress after `count` units within them."""
        here: Lexemes | None = lexemes
        for _ in range(count):
            if here is None:
                return None
            following = self._unit(here)
            if following is here:
                return here
            here = following
        return here

    def spelled(self, terminal: int) -> bool:
        """Whether some number of units makes up the terminal."""
        dfa = self._tables.terminals[terminal].dfa
        seen, waiting = {0}, [0]
        while waiting:
            state = waiting.pop()
            if dfa.accepting[state]:
                return True
            for target in self._successors(terminal, state):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return False

    def ends(self, lexemes: Lexemes) -> dict[int, int]:
        """By terminal: after how many units, at least 1, a lexeme in progress may end."""
        found = self._ends.get(lexemes)
        if found is None:
            found = {}
            for t, state in lexemes.key:
                lengths = self._endings[t].get(state)
                if lengths is None:
                    self._end(t, state)
                    lengths = self._endings[t][state]
                if lengths:
                    found[t] = found.get(t, 0) | lengths
            self._ends[lexemes] = found
        return found

    def _end(self, terminal: int, start: int) -> None:
        """Notes of every state that can be reached after how many units it may end."""
        known, accepting = self._endings[terminal], self._tables.terminals[terminal].dfa.accepting
        following = self._following(terminal, start, known)
        seeds = {
            state: 2 * any(accepting[to] for to in targets)
            | self._later(known.get(to, 0) for to in targets)
            for state, targets in following.items()
        }
        known |= self._lengths(following, seeds)

    def _states(self, terminal: int) -> list[tuple[int, int]]:
        following = self._following(terminal, 0, {})
        leading: dict[int, list[int]] = {state: [] for state in reversed(following)}
        for state, targets in following.items():
            for to in targets:
                leading[to].append(state)
        seeds = {state: 2 * (0 in sources) for state, sources in leading.items()}
        found = self._lengths(leading, seeds)
        return [(state, self.reversed(lengths)) for state, lengths in found.items() if lengths]

    def _following(
        self, terminal: int, start: int, known: Mapping[int, int]
    ) -> dict[int, Collection[int]]:
        """What one unit leads to, of every state that can be reached and is not known: what is
        reached first comes last, but for circles."""
        found: dict[int, Collection[int]] = {}
        entered, path = {start}, [(start, iter(self._successors(terminal, start)))]
        while path:
            self._deadline.check()
            state, targets = path[-1]
            for to in targets:
                if to not in entered and to not in known:
                    entered.add(to)
                    path.append((to, iter(self._successors(terminal, to))))
                    break
            else:
                found[state] = self._successors(terminal, state)
                path.pop()
        return found

    def _lengths(
        self, beside: Mapping[int, Collection[int]], seeds: Mapping[int, int]
    ) -> dict[int, int]:
        """The least lengths that hold each state's seed and, one unit later, those of all that
        stand `beside` it."""
        found, changed = dict(seeds), True
        while changed:
            changed = False
            for state, others in beside.items():
                self._deadline.check()
                lengths = found[state] | self._later(found.get(other, 0) for other in others)
                if state in others and lengths:
                    lengths = self.mask & -(lengths & -lengths)  # any number of rounds
                if lengths != found[state]:
                    found[state], changed = lengths, True
        return found

    def _later(self, lengths: Iterable[int]) -> int:
        """One unit later."""
        return reduce(or_, lengths, 0) << 1 & self.mask

    def _unit(self, lexemes: Lexemes) -> Lexemes | None:
        """After one unit that lies within the lexeme."""
        found = self._units.get(lexemes, False)
        if found is False:
            key = frozenset((t, to) for t, s in lexemes.key for to in self._successors(t, s))
            found = self._units[lexemes] = self._lexer.intern(key)
        return found  # type: ignore[return-value]

    def _symbols(self) -> list[int]:
        tables, mask = self._tables, self.mask
        found = [0] * tables.symbols
        for t, terminal in enumerate(tables.terminals):
            start = self._lexer.start([t])
            assert start is not None
            found[t] = self.ends(start).get(t, 0) | terminal.dfa.nullable
        users: list[set[int]] = [set() for _ in range(tables.symbols)]
        for symbol in range(len(tables.terminals), tables.symbols):
            for d in tables.first[symbol]:
                while tables.after[d] != END:
                    users[tables.after[d]].add(symbol)
                    d += 1
        waiting = set(range(len(tables.terminals), tables.symbols))
        while waiting:
            self._deadline.check()
            symbol = waiting.pop()
            lengths = found[symbol]
            for d in tables.first[symbol]:
                part = 1
                while part and tables.after[d] != END:
                    part = sums(part, found[tables.after[d]], mask)
                    d += 1
                lengths |= part
            if lengths != found[symbol]:
                found[symbol] = lengths
                waiting |= users[symbol]
        return found

    def _prefixes(self) -> list[int]:
        tables = self._tables
        found = [0] * len(tables.after)
        for rules in tables.first:
            for d in rules:
                found[d] = 1
                while tables.after[d] != END:
                    found[d + 1] = sums(found[d], self.symbol[tables.after[d]], self.mask)
                    d += 1
        return found

    def _suffixes(self) -> list[int]:
        tables = self._tables
        found = [1] * len(tables.after)
        for d in reversed(range(len(tables.after))):
            if tables.after[d] != END:
                found[d] = sums(self.symbol[tables.after[d]], found[d + 1], self.mask)
        return found

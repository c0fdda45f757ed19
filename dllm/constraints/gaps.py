"""Gaps of exactly n units (bytes, characters, tokens) in constant work per dotted rule.

In place of one frame per unit, every item of the gap carries the set of counts at which it can
stand there: `Lengths` says how far a symbol leads. A constituent that begins inside the gap and
ends after it has the set of its possible starts as origin.
"""

from __future__ import annotations

from collections.abc import Iterable

from dllm.constraints.chart import SENTENCE, Chart, Frame, Item, Origin
from dllm.constraints.lengths import Lengths, bits, sums
from dllm.constraints.lexer import Lexemes
from dllm.constraints.tables import END


class Gap:
    """What can stand in a gap of up to `most` units after one frame.

    Most gaps are short, and what needs more units than there are is not followed: a small `most`
    leaves out all but the innermost open constituents.
    """

    def __init__(self, chart: Chart, lengths: Lengths, frame: Frame, most: int) -> None:
        self._chart, self._lengths, self._frame = chart, lengths, frame
        self._mask = (2 << most) - 1
        # What began in the frame is expected anew at count 0, unless it can have gone on since.
        self._own = frame if frame.anything is frame else None
        self._starts: dict[int, Start] = {}
        self._after: dict[int, Frame | None] = {}
        self.open: dict[int, dict[Item, int]] = {}
        """Constituents begun before the gap, by the symbol they wait for: counts at which they
        do."""
        self._ends = int(frame.root)
        """Counts at which the text may end."""
        self._enter()
        self.expected = self._expected()
        """Per symbol: counts at which it can begin."""

    def after(self, count: int) -> Frame | None:
        """The frame after exactly `count` units; None if there is none.

        Raises `Undecided` at the chart's deadline.
        """
        found = self._after.get(count, False)
        if found is False:
            self._chart.deadline.check()
            found = self._after[count] = self._close(count)
        return found  # type: ignore[return-value]

    def start(self, counts: int) -> Start:
        """The origin of what began at one of the counts."""
        found = self._starts.get(counts)
        if found is None:
            found = self._starts[counts] = Start(self, counts)
        return found

    def waiting(self, symbol: int, counts: int) -> Iterable[Item]:
        """What waits for a symbol begun at one of the counts."""
        tables, lengths = self._chart.tables, self._lengths
        found: list[Item] = [
            item for item, where in self.open.get(symbol, {}).items() if where & counts
        ]
        for d in tables.users[symbol]:
            expected = self.expected.get(tables.left[d], 0)
            if expected:
                before = 0
                for count in bits(counts):
                    before |= lengths.starts(lengths.before[d], count)
                if expected & before:
                    found.append((d, self.start(expected & before)))
        return found

    def _enter(self) -> None:
        """Follows the constituents begun before the gap through it."""
        tables, lengths = self._chart.tables, self._lengths
        after, left, mask = tables.after, tables.left, self._mask
        # Dotted rules, and ~symbol for what is complete, however it came about.
        reached: dict[Item, int] = {}
        waiting: dict[Item, int] = {}

        def add(d: int, origin: Origin | None, counts: int) -> None:
            key = (d if after[d] != END else ~left[d], origin)
            known = reached.get(key, 0)
            new = counts & ~known
            if new:
                reached[key] = known | new
                waiting[key] = waiting.get(key, 0) | new

        for items in self._frame.wait.values():
            for d, origin in items:
                if origin or self._own:
                    add(d, origin or self._own, 1)
        for origin, lexemes in self._frame.lex:
            origin = origin or self._own
            if origin is not None:
                for t, counts in lengths.ends(lexemes).items():
                    if counts & mask:
                        for d, o in origin.waiting(t):
                            add(d + 1, o, counts & mask)
        while waiting:
            self._chart.deadline.check()
            # First come, first served: what is popped late has gathered more counts.
            d, origin = key = next(iter(waiting))
            counts = waiting.pop(key)
            assert origin is not None
            if d >= 0:
                further = sums(counts, lengths.symbol[after[d]] & mask, mask)
                if further:
                    add(d + 1, origin, further)
            elif origin is SENTENCE:
                self._ends |= counts
            else:
                for other, o in origin.waiting(~d):
                    add(other + 1, o, counts)
        for item, counts in reached.items():
            if item[0] >= 0:
                self.open.setdefault(after[item[0]], {})[item] = counts

    def _expected(self) -> dict[int, int]:
        tables, lengths = self._chart.tables, self._lengths
        found: dict[int, int] = {}
        waiting: dict[int, int] = {}
        mask = self._mask

        def add(symbol: int, counts: int) -> None:
            new = counts & ~found.get(symbol, 0)
            if new:
                found[symbol] = found.get(symbol, 0) | new
                waiting[symbol] = waiting.get(symbol, 0) | new

        for symbol, items in self.open.items():
            for counts in items.values():
                add(symbol, counts)
        while waiting:
            self._chart.deadline.check()
            symbol = next(iter(waiting))
            counts = waiting.pop(symbol)
            for d in tables.first[symbol]:
                here = counts
                while here and tables.after[d] != END:
                    add(tables.after[d], here)
                    here = sums(here, lengths.symbol[tables.after[d]] & mask, mask)
                    d += 1
        return found

    def _close(self, count: int) -> Frame | None:
        tables, lengths, lexer = self._chart.tables, self._lengths, self._chart.lexer
        inside = (1 << count) - 1
        seeds: list[Item] = [
            item
            for items in self.open.values()
            for item, counts in items.items()
            if counts >> count & 1
        ]
        lex: list[tuple[Origin | None, Lexemes]] = []
        for origin, lexemes in self._frame.lex:
            origin = origin or self._own
            if origin is not None:
                left = lengths.after(lexemes, count)
                if left is not None:
                    lex.append((origin, left))
        begun: dict[int, set[tuple[int, int]]] = {}
        for symbol, counts in self.expected.items():
            counts &= inside
            if not counts:
                continue
            for d in tables.first[symbol]:
                while tables.after[d] != END:
                    d += 1
                    starts = counts & lengths.starts(lengths.before[d], count)
                    if starts and tables.after[d] != END:
                        seeds.append((d, self.start(starts)))
            if symbol < len(tables.terminals):
                for state, leading in lengths.within[symbol]:
                    starts = counts & lengths.starts(leading, count)
                    if starts:
                        begun.setdefault(starts, set()).add((symbol, state))
        for starts, positions in begun.items():
            lexemes = lexer.intern(frozenset(positions))
            assert lexemes is not None
            lex.append((self.start(starts), lexemes))
        root = bool(self._ends >> count & 1)
        if not seeds and not lex and not root:
            return None
        return self._chart.close(seeds, lex, root)


class Start:
    """The origin of constituents begun at one of several counts inside a gap."""

    __slots__ = ("_counts", "_found", "_gap")

    def __init__(self, gap: Gap, counts: int) -> None:
        self._gap, self._counts = gap, counts
        self._found: dict[int, Iterable[Item]] = {}

    def waiting(self, symbol: int) -> Iterable[Item]:
        found = self._found.get(symbol)
        if found is None:
            found = self._found[symbol] = self._gap.waiting(symbol, self._counts)
        return found

"""Gaps of exactly n units (bytes, characters, tokens) in constant work per dotted rule.

In place of one frame per unit, every item of the gap carries the set of counts at which it can
stand there: `Lengths` says how far a symbol leads. A constituent that begins inside the gap and
ends after it has the set of its possible starts as origin.
"""

from __future__ import annotations

from collections.abc import Iterable

from dllm.constraints.chart import OWN, SENTENCE, Chart, Closure, Frame, Item
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
        self._own = frame.own
        self._starts: dict[int, Start] = {}
        self._after: dict[int, Frame | None] = {}
        self.open: dict[Item, int] = {}
        """Constituents begun before the gap that wait for a symbol: counts at which they do."""
        self._waiting: dict[int, list[Item]] = {}
        """Those by the symbol."""
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

    def start(self, counts: int) -> int:
        """The number of the origin of what began at one of the counts."""
        found = self._starts.get(counts)
        if found is None:
            found = self._starts[counts] = Start(self, counts)
            found.number = self._chart.numbered(found)
        return found.number

    def behind(self, symbol: int, counts: int) -> Iterable[Item]:
        """What waited for a symbol begun at one of the counts, with the dot behind it."""
        tables, lengths, width = self._chart.tables, self._lengths, self._chart.width
        found: list[Item] = [
            item + 1 for item in self._waiting.get(symbol, ()) if self.open[item] & counts
        ]
        for d in tables.users[symbol]:
            expected = self.expected.get(tables.left[d], 0)
            if expected:
                before = 0
                for count in bits(counts):
                    before |= lengths.starts(lengths.before[d], count)
                if expected & before:
                    found.append(self.start(expected & before) * width + d + 1)
        return tuple(found)

    def _enter(self) -> None:
        """Follows the constituents begun before the gap through it."""
        tables, lengths, origins = self._chart.tables, self._lengths, self._chart.origins
        after, left, mask, width = tables.after, tables.left, self._mask, self._chart.width
        # Items, and ~(origin * width + symbol) for what is complete, however it came about.
        reached: dict[int, int] = {}
        waiting: dict[int, int] = {}

        def add(item: Item, counts: int) -> None:
            d = item % width
            key = item if after[d] != END else ~(item - d + left[d])
            known = reached.get(key, 0)
            new = counts & ~known
            if new:
                reached[key] = known | new
                waiting[key] = waiting.get(key, 0) | new

        for item in self._frame.items:
            if item >= width:
                add(item, 1)
            elif self._own != OWN:
                add(self._own * width + item, 1)
        for origin, lexemes in self._frame.lex:
            origin = origin or self._own
            if origin != OWN:
                for t, counts in lengths.ends(lexemes).items():
                    if counts & mask:
                        for item in origins[origin].behind(t):
                            add(item, counts & mask)
        while waiting:
            self._chart.deadline.check()
            # First come, first served: what is popped late has gathered more counts.
            key = next(iter(waiting))
            counts = waiting.pop(key)
            if key >= 0:
                further = sums(counts, lengths.symbol[after[key % width]] & mask, mask)
                if further:
                    add(key + 1, further)
                continue
            origin, symbol = divmod(~key, width)
            if origin == SENTENCE:
                self._ends |= counts
            else:
                for item in origins[origin].behind(symbol):
                    add(item, counts)
        for item, counts in reached.items():
            if item >= 0:
                self.open[item] = counts
                self._waiting.setdefault(after[item % width], []).append(item)

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

        for symbol, items in self._waiting.items():
            for item in items:
                add(symbol, self.open[item])
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
        tables, lengths, width = self._chart.tables, self._lengths, self._chart.width
        inside = (1 << count) - 1
        seeds: list[Item] = [item for item, counts in self.open.items() if counts >> count & 1]
        lex: list[tuple[int, Lexemes]] = []
        for origin, lexemes in self._frame.lex:
            origin = origin or self._own
            if origin != OWN:
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
                        seeds.append(self.start(starts) * width + d)
            if symbol < len(tables.terminals):
                for state, leading in lengths.within[symbol]:
                    starts = counts & lengths.starts(leading, count)
                    if starts:
                        begun.setdefault(starts, set()).add((symbol, state))
        for starts, positions in begun.items():
            lexemes = self._chart.lexer.intern(frozenset(positions))
            assert lexemes is not None
            lex.append((self.start(starts), lexemes))
        root = bool(self._ends >> count & 1)
        if not seeds and not lex and not root:
            return None
        return self._chart.frame(self._chart.closure(seeds), lex, root)


class Start:
    """The origin of constituents begun at one of several counts inside a gap."""

    __slots__ = ("_behind", "_counts", "_gap", "closures", "number")

    def __init__(self, gap: Gap, counts: int) -> None:
        self._gap, self._counts = gap, counts
        self._behind: dict[int, Iterable[Item]] = {}
        self.closures: dict[int, Closure] | None = None
        self.number = OWN
        """As an origin, once it is one."""

    def behind(self, symbol: int) -> Iterable[Item]:
        found = self._behind.get(symbol)
        if found is None:
            found = self._behind[symbol] = self._gap.behind(symbol, self._counts)
        return found

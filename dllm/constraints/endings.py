"""How many more units a text needs at its end: worked out per open constituent, once for all
frames in which it is open."""

from __future__ import annotations

from dllm.constraints.chart import OWN, SENTENCE, Chart, Frame
from dllm.constraints.lengths import Lengths, sums


class Endings:
    """Lengths of what can follow, all of them within the lengths' longest."""

    def __init__(self, chart: Chart, lengths: Lengths) -> None:
        self._chart, self._lengths = chart, lengths
        self._symbols = chart.tables.symbols
        self._after: dict[int, int] = {}
        """What can follow the end of a symbol begun somewhere: by the origin's number times the
        count of symbols, plus the symbol."""
        self._frames: dict[Frame, int] = {}

    def forget(self) -> None:
        self._after.clear()
        self._frames.clear()

    def of(self, frame: Frame) -> int:
        """Lengths after which the text can end."""
        found = self._frames.get(frame)
        if found is None:
            found = self._frames[frame] = self._of(frame)
        return found

    def _of(self, frame: Frame) -> int:
        left, rest, mask = self._chart.tables.left, self._lengths.rest, self._lengths.mask
        width, origins = self._chart.width, self._chart.origins
        found = int(frame.root)
        # What can follow, by the open constituent that goes on with it.
        ahead: dict[int, int] = {}

        def add(item: int, counts: int) -> None:
            origin, d = divmod(item, width)
            # What began in the frame is expected anew, unless it can have gone on since.
            origin = origin or frame.own
            if origin != OWN:
                node = origin * self._symbols + left[d]
                ahead[node] = ahead.get(node, 0) | sums(counts, rest[d], mask)

        for item in frame.items:
            add(item, 1)
        for origin, lexemes in frame.lex:
            origin = origin or frame.own
            if origin != OWN:
                for t, counts in self._lengths.ends(lexemes).items():
                    for item in origins[origin].behind(t):
                        add(item, counts)
        for node, counts in ahead.items():
            found |= sums(counts, self._follow(node), mask)
        return found

    def _follow(self, start: int) -> int:
        if start not in self._after:
            self._solve(start)
        return self._after[start]

    def _solve(self, start: int) -> None:
        """The least fixpoint over everything that is open around it."""
        left, rest, mask = self._chart.tables.left, self._lengths.rest, self._lengths.mask
        width, origins, symbols = self._chart.width, self._chart.origins, self._symbols
        around: dict[int, dict[int, int]] = {}
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node in around or node in self._after:
                continue
            origin, symbol = divmod(node, symbols)
            if origin == SENTENCE:
                self._after[node] = 1
                continue
            outer = around[node] = {}
            for item in origins[origin].behind(symbol):
                begun, d = divmod(item, width)
                further = begun * symbols + left[d]
                outer[further] = outer.get(further, 0) | rest[d]
            waiting += outer
        values = dict.fromkeys(around, 0)
        changed = True
        while changed:
            changed = False
            for node in reversed(around):
                new = values[node]
                for further, lengths in around[node].items():
                    known = self._after.get(further) or values.get(further, 0)
                    new |= sums(lengths, known, mask)
                if new != values[node]:
                    values[node], changed = new, True
        self._after |= values

"""How many more units a text needs at its end: worked out per open constituent, once for all
frames in which it is open."""

from __future__ import annotations

from dllm.constraints.chart import SENTENCE, Frame, Origin
from dllm.constraints.lengths import Lengths, sums
from dllm.constraints.tables import Tables


Open = tuple[int, Origin]
"""A symbol and where it began."""


class Endings:
    """Lengths of what can follow, all of them within the lengths' longest."""

    def __init__(self, tables: Tables, lengths: Lengths) -> None:
        self._tables, self._lengths = tables, lengths
        self._after: dict[Open, int] = {}
        """What can follow the end of a symbol begun there."""
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
        left, rest, mask = self._tables.left, self._lengths.rest, self._lengths.mask
        # What began in the frame is expected anew, unless it can have gone on since.
        own = frame if frame.anything is frame else None
        found = int(frame.root)
        for items in frame.wait.values():
            for d, origin in items:
                origin = origin or own
                if origin is not None:
                    found |= sums(rest[d], self._follow((left[d], origin)), mask)
        for origin, lexemes in frame.lex:
            origin = origin or own
            if origin is None:
                continue
            for t, counts in self._lengths.ends(lexemes).items():
                for d, o in origin.waiting(t):
                    assert o is not None
                    tail = sums(rest[d + 1], self._follow((left[d], o)), mask)
                    found |= sums(counts, tail, mask)
        return found

    def _follow(self, start: Open) -> int:
        if start not in self._after:
            self._solve(start)
        return self._after[start]

    def _solve(self, start: Open) -> None:
        """The least fixpoint over everything that is open around it."""
        left, rest, mask = self._tables.left, self._lengths.rest, self._lengths.mask
        around: dict[Open, list[tuple[int, Open]]] = {}
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node in around or node in self._after:
                continue
            symbol, origin = node
            if origin is SENTENCE:
                self._after[node] = 1
                continue
            around[node] = []
            for d, o in origin.waiting(symbol):
                assert o is not None
                around[node].append((rest[d + 1], (left[d], o)))
                waiting.append((left[d], o))
        values = dict.fromkeys(around, 0)
        changed = True
        while changed:
            changed = False
            for node in reversed(around):
                new = values[node]
                for lengths, outer in around[node]:
                    new |= sums(lengths, self._after.get(outer) or values.get(outer, 0), mask)
                if new != values[node]:
                    values[node], changed = new, True
        self._after |= values

"""Whether a partial text can be completed: the emptiness of a grammar's language cut down to all
fillings of the gaps, answered yes, no or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from dllm.clock import NEVER, Deadline, Undecided
from dllm.constraints.chart import Chart, Frame
from dllm.constraints.gaps import Gap
from dllm.constraints.grammar import Grammar
from dllm.constraints.lengths import Lengths
from dllm.constraints.tables import Tables
from dllm.constraints.units import characters


@dataclass(frozen=True)
class Hole:
    """Missing text."""

    count: int | None = None
    """Exactly so many units; None = any text, the empty one included."""


Piece = bytes | Hole


class Verdict(Enum):
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """The time was over before the answer was known."""


@dataclass
class Checker:
    """Answers for one grammar; what one answer found out makes the next ones cheaper."""

    chart: Chart
    lengths: Lengths
    """The unit of counted holes."""

    @classmethod
    def of(cls, grammar: Grammar, longest: int) -> Checker:
        """For holes of up to `longest` characters."""
        tables = Tables.of(grammar)
        chart = Chart(tables)
        return cls(chart, Lengths(tables, chart.lexer, characters(tables), longest, NEVER))

    def completable(
        self, pieces: Sequence[Piece], ended: bool, deadline: Deadline = NEVER
    ) -> Verdict:
        """Whether some filling of the holes, followed by nothing more if `ended`, is valid."""
        self.chart.deadline = deadline
        try:
            frame = self.chart.initial
            for piece in joined(pieces):
                frame = self.after(frame, piece)
                if frame is None:
                    return Verdict.NO
        except Undecided:
            return Verdict.UNKNOWN
        return Verdict.YES if frame.root or not ended else Verdict.NO

    def after(self, frame: Frame, piece: Piece) -> Frame | None:
        """The frame after one piece, None if there is none."""
        if isinstance(piece, bytes):
            return self.chart.read(frame, piece)
        if piece.count is None:
            return self.chart.skip(frame)
        return self.gap(frame, piece.count).after(piece.count)

    def gap(self, frame: Frame, count: int) -> Gap:
        """What a hole of so many units after a frame may hold; one object for similar counts."""
        most = min(max(4, 1 << (count - 1).bit_length()), self.lengths.longest)
        if frame.gaps is None:
            frame.gaps = {}
        found = frame.gaps.get((self.lengths, most))
        if found is None:
            found = frame.gaps[self.lengths, most] = Gap(self.chart, self.lengths, frame, most)
        return found


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The same text with neighbouring holes as one."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if isinstance(piece, Hole) and isinstance(last, Hole):
            if last.count is None or piece.count is None:
                # At least as many units as the counted one: what the other adds is any text.
                counted = last.count if piece.count is None else piece.count
                found[-1:] = [Hole()] if counted is None else [Hole(counted), Hole()]
                continue
            found[-1] = Hole(last.count + piece.count)
            continue
        found.append(piece)
    return found

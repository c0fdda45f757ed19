"""Whether a canvas of tokens and masks can still become a valid answer of its length.

The answer is the text before the first end token, and only end tokens follow it. A run of masks is
a gap of exactly so many tokens. `YES` has a filling in which every token lies within one lexeme; a
canvas that needs a token across lexemes is `UNKNOWN`, and `NO` has no filling of any number of
tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from dllm.clock import NEVER, Deadline, Undecided
from dllm.constraints.chart import Chart, Frame
from dllm.constraints.checker import Checker, Hole, Piece, Verdict
from dllm.constraints.collection import uncollected
from dllm.constraints.completion import shortest_completion
from dllm.constraints.endings import Endings
from dllm.constraints.grammar import Grammar
from dllm.constraints.lengths import Lengths, bits
from dllm.constraints.tables import END, Tables
from dllm.constraints.units import tokens
from dllm.constraints.vocabulary import Vocabulary


class CanvasChecker:
    """Answers about canvases of up to `longest` tokens for one grammar and vocabulary."""

    def __init__(
        self,
        grammar: Grammar,
        vocabulary: Vocabulary,
        mask_id: int,
        ends: Sequence[int],
        longest: int,
        counted: bool = True,
        prefix: bytes = b"",
        deadline: Deadline = NEVER,
    ) -> None:
        """`prefix` stands before the canvas and is part of the answer; with `counted` false, a run
        of masks is any text."""
        tables = Tables.of(grammar)
        self.chart = Chart(tables)
        units = tokens(tables, vocabulary)
        self._lengths = Lengths(tables, self.chart.lexer, units, longest, deadline)
        self._checker = Checker(self.chart, self._lengths)
        self._endings = Endings(self.chart, self._lengths)
        self.vocabulary, self.longest, self.counted = vocabulary, longest, counted
        self.mask_id, self.ends = mask_id, frozenset(ends)
        self._texts: list[bytes] | None = None
        self._members: dict[bytes, list[int]] = {}
        self._options: dict[Frame, list[tuple[Frame, np.ndarray]]] = {}
        self.prefix = prefix

    @property
    def start(self) -> Frame:
        """After the prefix."""
        frame = self.chart.read(self.chart.initial, self.prefix)
        assert frame is not None, "asked about a prefix that no answer has"
        return frame

    def begins(self) -> bool:
        """Whether an answer can begin with the prefix."""
        return self.chart.read(self.chart.initial, self.prefix) is not None

    def forget(self) -> None:
        """Drops what earlier answers have found out."""
        self._options.clear()
        self._endings.forget()
        self.chart.forget()

    def shortest(self) -> int | None:
        """Tokens of the shortest answer, each within one lexeme; None = none of `longest`."""
        return next(bits(self._endings.of(self.start)), None)

    def spellable(self) -> bool:
        """Whether the vocabulary's tokens can spell an answer of any length."""
        tables = self.chart.tables
        spelled = [self._lengths.spelled(t) for t in range(len(tables.terminals))]
        spelled += [False] * (tables.symbols - len(spelled))
        changed = True
        while changed:
            changed = False
            for symbol, rules in enumerate(tables.first):
                for d in rules:
                    while tables.after[d] != END and spelled[tables.after[d]]:
                        d += 1
                    if tables.after[d] == END and not spelled[symbol]:
                        spelled[symbol] = changed = True
        return spelled[tables.root]

    @uncollected()
    def verdict(self, canvas: np.ndarray, deadline: Deadline = NEVER) -> Verdict:
        """For the tokens of a generation region."""
        self.chart.deadline = deadline
        try:
            if self._fits(self.start, canvas):
                return Verdict.YES
            if not self.counted or self._behind(canvas):
                return Verdict.NO
            last = self._last(canvas)
            here = self._walk(self.start, canvas[:last], counted=False)
            if here is None or not self.chart.skip(here).root:
                return Verdict.NO
        except Undecided:
            pass
        return Verdict.UNKNOWN

    @uncollected()
    def fits(self, canvas: np.ndarray, deadline: Deadline = NEVER) -> bool:
        """Whether the verdict is `YES`, which is found out sooner than the others.

        Raises `Undecided` at the deadline.
        """
        self.chart.deadline = deadline
        return self._fits(self.start, canvas)

    @uncollected()
    def finished(self, canvas: np.ndarray) -> bool:
        """Whether the answer is valid as it stands, nothing being written any more."""
        self.chart.deadline = NEVER
        end = self._end(canvas)
        text = canvas[:end]
        while len(text) and text[-1] == self.mask_id:
            text = text[:-1]
        if (text == self.mask_id).any():
            return False
        frame = self._walk(self.start, text)
        return frame is not None and frame.root

    @uncollected()
    def allowed(
        self, canvas: np.ndarray, position: int, deadline: Deadline
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids that can stand at a masked position, and those that are not decided at the deadline,
        as masks over the vocabulary."""
        self.chart.deadline = deadline
        found = np.zeros(len(self.vocabulary.texts), dtype=bool)
        left = np.ones_like(found)
        try:
            for end in self.ends:
                changed = canvas.copy()
                changed[position] = end
                found[end] = self._fits(self.start, changed)
                left[end] = False
            before = self._walk(self.start, canvas[:position])
            followers = [] if before is None else self._followers(before)  # None: behind the end
            left[:] = False
            for _, ids in followers:
                left[ids] = True
            rest = canvas[position + 1 :]
            for frame, ids in followers:
                found[ids] = self._fits(frame, rest)
                left[ids] = False
        except Undecided:
            pass
        return found, left

    def completion(self, canvas: np.ndarray, deadline: Deadline) -> str | None:
        """The canvas with a shortest text in its gaps, each of any length, and behind it if it has
        no end; without the prefix. None if there is none or it is not found in time."""
        pieces: list[Piece] = [self.prefix]
        end = self._end(canvas)
        for token in canvas[:end].tolist():
            piece = Hole() if token == self.mask_id else self.vocabulary.texts[token]
            if piece is None:
                return None
            pieces.append(piece)
        if end == len(canvas):
            pieces.append(Hole())
        try:
            found = shortest_completion(self.chart.tables, pieces, deadline)
            return None if found is None else found[len(self.prefix) :].decode()
        except (Undecided, UnicodeDecodeError):
            return None

    def _fits(self, frame: Frame, canvas: np.ndarray) -> bool:
        if self._behind(canvas):
            return False
        end, last = self._end(canvas), self._last(canvas)
        here = self._walk(frame, canvas[:last])
        return here is not None and self._can_end(here, end - last, end == len(canvas))

    def _behind(self, canvas: np.ndarray) -> bool:
        """Whether anything but end tokens stands behind the first one."""
        rest = canvas[self._end(canvas) :].tolist()
        return not all(token in self.ends or token == self.mask_id for token in rest)

    def _last(self, canvas: np.ndarray) -> int:
        """Where the tail of masks before the end begins."""
        filled = np.flatnonzero(canvas[: self._end(canvas)] != self.mask_id)
        return int(filled[-1]) + 1 if filled.size else 0

    def _can_end(self, frame: Frame, room: int, to_the_edge: bool) -> bool:
        """Whether the answer can end within so many more tokens."""
        if not self.counted:
            return self.chart.skip(frame).root if room else frame.root
        ends = self._endings.of(frame)
        if to_the_edge and not self.ends:
            return bool(ends >> room & 1)
        return bool(ends & ((2 << room) - 1))

    def _end(self, canvas: np.ndarray) -> int:
        """Where the first end token stands; the length if there is none."""
        for position, token in enumerate(canvas.tolist()):
            if token in self.ends:
                return position
        return len(canvas)

    def _walk(self, frame: Frame, canvas: np.ndarray, counted: bool = True) -> Frame | None:
        """The frame after tokens and masks."""
        here: Frame | None = frame
        masks = 0
        for token in [*canvas.tolist(), None]:
            if token == self.mask_id:
                masks += 1
                continue
            if masks:
                exact = counted and self.counted
                here = self._checker.after(here, Hole(masks if exact else None))
                masks = 0
            if token is None or here is None:
                return here
            text = self.vocabulary.texts[token]
            here = None if text is None else self.chart.read(here, text)
            if here is None:
                return None
        return here

    def _followers(self, frame: Frame) -> list[tuple[Frame, np.ndarray]]:
        """What one more token can lead to, with the ids that do."""
        if frame in self._options:
            return self._options[frame]
        if self._texts is None:
            classes = self.chart.lexer.classes
            for token, text in enumerate(self.vocabulary.texts):
                if text:
                    self._members.setdefault(text.translate(classes), []).append(token)
            self._texts = sorted(self._members)
        found: dict[Frame, list[int]] = {}
        path: list[Frame] = [frame]
        previous, at = b"", 0
        while at < len(self._texts):
            text = self._texts[at]
            shared = 0
            while shared < min(len(text), len(previous)) and text[shared] == previous[shared]:
                shared += 1
            del path[shared + 1 :]
            previous = text
            for depth in range(len(path) - 1, len(text)):
                following = self.chart.step(path[-1], text[depth])
                if following is None:
                    # Nothing that begins like this is possible: on behind all of that.
                    dead = text[: depth + 1]
                    previous = dead[:-1]
                    at = bisect_left(self._texts, dead[:-1] + bytes([dead[-1] + 1]), at + 1)
                    break
                path.append(following)
            else:
                found.setdefault(path[-1], []).extend(self._members[text])
                at += 1
        result = [(following, np.array(ids)) for following, ids in found.items()]
        # What most tokens lead to comes first, for those who have little time.
        result.sort(key=lambda pair: -len(pair[1]))
        self._options[frame] = result
        return result

"""4x4 latin squares with blanks and exactly one completion.

A square is four groups of four cells, a dot for a blank: `12.4 .3.1 ...`. The response is the
whole square.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations
from random import Random

from dllm.tasks.base import GeneratedTask, Sample


SIZE = 4
BLANK = "."


@cache
def squares() -> tuple[str, ...]:
    """All 576 latin squares of order 4, rows concatenated."""
    rows = ["".join(p) for p in permutations("1234")]

    def clash(row: str, other: str) -> bool:
        return any(a == b for a, b in zip(row, other, strict=True))

    def extend(square: tuple[str, ...]) -> list[tuple[str, ...]]:
        if len(square) == SIZE:
            return [square]
        fits = [row for row in rows if not any(clash(row, other) for other in square)]
        return [full for row in fits for full in extend((*square, row))]

    return tuple("".join(square) for square in extend(()))


@cache
def _containing(cell: int, symbol: str) -> int:
    """The squares with `symbol` in `cell`, as a bit set over the index in `squares()`."""
    return sum(1 << i for i, square in enumerate(squares()) if square[cell] == symbol)


def completions(cells: str) -> int:
    """How many latin squares agree with the given cells (16 characters, dots for blanks)."""
    fitting = (1 << len(squares())) - 1
    for cell, symbol in enumerate(cells):
        if symbol != BLANK:
            fitting &= _containing(cell, symbol)
    return fitting.bit_count()


def layout(cells: str) -> str:
    return " ".join(cells[i : i + SIZE] for i in range(0, SIZE * SIZE, SIZE))


class LatinSquare(GeneratedTask):
    """`min_blanks` to `max_blanks` of the 16 cells are to be filled in."""

    def __init__(self, min_blanks: int = 5, max_blanks: int = 8) -> None:
        # at least four givens are needed for a unique square; five leave room for drawing
        if not 1 <= min_blanks <= max_blanks <= 11:
            raise ValueError(f"blanks {min_blanks} to {max_blanks}: must lie in 1 to 11")
        self.kinds = ("latin",)
        self.min_blanks, self.max_blanks = min_blanks, max_blanks

    def draw(self, kind: str, rng: Random) -> Sample:
        blanks = rng.randint(self.min_blanks, self.max_blanks)
        while True:
            square = rng.choice(squares())
            hidden = set(rng.sample(range(SIZE * SIZE), blanks))
            cells = "".join(BLANK if i in hidden else s for i, s in enumerate(square))
            if completions(cells) == 1:
                break
        return Sample.of(kind, f"latin: {layout(cells)}", layout(square), blanks=blanks)

    def grade(self, sample: Sample, text: str) -> bool:
        return text.strip() == sample.answer

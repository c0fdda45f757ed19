"""ParallelBench's puzzles drawn anew: latin squares and 4x4 sudokus, always the same ones.

The squares follow the benchmark's procedure, which makes its published file again. Its sudokus are
a copy of another project's file; these are drawn from all 288 solutions, with as many given cells,
and have one solution. Prompts are our own.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import permutations, product
from random import Random
from string import ascii_uppercase, digits
from typing import Any

from dllm.tasks.base import Grade, Sample, Split, Task, chosen
from dllm.tasks.parallelbench.generated import example_of, seed_of
from dllm.tasks.parallelbench.metrics import METRICS
from dllm.tasks.public import identified
from dllm.tasks.rows import Row


SIZE = 4
BLANK = "0"
METRIC = {"latin_square": "latin_square_score", "sudoku": "sudoku_score"}
PROMPTS = {
    "latin_square": (
        "Make a latin square of size {size} from the symbols {symbols}: every row and every column "
        "holds each of them once. Answer with its rows only, cells parted by commas."
    ),
    "sudoku": (
        "Replace every 0 of this grid so that each row, each column and each of the four 2x2 boxes "
        "holds the digits 1 to 4 once. Answer with the grid only.\n{sudoku}"
    ),
}


def latin_squares(count: int) -> Iterator[Row]:
    """Rows as in the benchmark's file; worked examples are drawn after all of them."""
    rng = Random(seed_of(f"latin_square_n{SIZE}"))
    yield from _with_examples(lambda: _latin_square(rng), count)


def _latin_square(rng: Random) -> dict[str, Any]:
    symbols = rng.sample(ascii_uppercase + digits, SIZE)
    rows = [symbols[i:] + symbols[:i] for i in range(SIZE)]
    rng.shuffle(rows)
    columns = list(zip(*rows, strict=True))
    rng.shuffle(columns)
    square = "\n".join(",".join(row) for row in zip(*columns, strict=True))
    return {
        "input": {"size": SIZE, "symbols": f"[{', '.join(symbols)}]"},
        "answer": {"symbols": symbols, "example": square},
        "metadata": {"length": SIZE},
    }


def sudokus(count: int, givens: int) -> Iterator[Row]:
    rng = Random(seed_of(f"sudoku_n{SIZE}_{givens}"))
    yield from _with_examples(lambda: _sudoku(rng, givens), count)


@cache
def solutions() -> tuple[str, ...]:
    """All 288 grids, rows concatenated."""
    rows = ["".join(p) for p in permutations("1234")]
    boxes = [[r * SIZE + c, r * SIZE + c + 1, (r + 1) * SIZE + c, (r + 1) * SIZE + c + 1]
             for r, c in product((0, 2), (0, 2))]  # fmt: skip
    columns = [[r * SIZE + c for r in range(SIZE)] for c in range(SIZE)]
    groups = boxes + columns
    grids = map("".join, product(rows, repeat=SIZE))
    return tuple(g for g in grids if all(len({g[i] for i in group}) == SIZE for group in groups))


def completions(cells: str) -> int:
    """How many solutions agree with the given cells."""
    return sum(
        all(c in (BLANK, s) for c, s in zip(cells, grid, strict=True)) for grid in solutions()
    )


def _sudoku(rng: Random, givens: int) -> dict[str, Any]:
    while True:
        grid = rng.choice(solutions())
        holes = set(rng.sample(range(SIZE * SIZE), SIZE * SIZE - givens))
        cells = "".join(BLANK if i in holes else digit for i, digit in enumerate(grid))
        if completions(cells) == 1:
            break
    return {
        "input": {"sudoku": _layout(cells)},
        "answer": _layout(grid),
        "metadata": {"length": givens},
    }


def _layout(cells: str) -> str:
    return "\n".join(cells[i : i + SIZE] for i in range(0, SIZE * SIZE, SIZE))


def _with_examples(draw: Callable[[], dict[str, Any]], count: int) -> Iterator[Row]:
    rows = [draw() for _ in range(count)]
    for row in rows:
        yield {**row, "input": {**row["input"], "icl_examples": [draw()]}}


class Puzzles(Task):
    """
    count: samples of each kind
    givens: cells of a sudoku that are told
    """

    def __init__(self, kinds: Sequence[str] | None, count: int, givens: int) -> None:
        if count < 1:
            raise ValueError(f"count={count} must be >= 1")
        # with fewer than four a 4x4 grid has several solutions
        if not 5 <= givens <= 15:
            raise ValueError(f"givens={givens} is outside 5..15")
        self.kinds = chosen(kinds, tuple(PROMPTS))
        self.count, self.givens = count, givens

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """The kinds in turn; `limit` in total (None: all)."""
        lists = [list(self._of_kind(kind)) for kind in self.kinds]
        return [sample for together in zip(*lists, strict=True) for sample in together][:limit]

    def _of_kind(self, kind: str) -> Iterator[Sample]:
        latin = kind == "latin_square"
        rows = latin_squares(self.count) if latin else sudokus(self.count, self.givens)
        for number, row in enumerate(rows):
            (example,) = row["input"]["icl_examples"]
            turn = (PROMPTS[kind].format(**example["input"]), example_of(example["answer"]))
            asked = PROMPTS[kind].format(**row["input"])
            yield identified(kind, number, row, asked, example_of(row["answer"]), (turn,))

    def assess(self, sample: Sample, text: str) -> Grade:
        score = METRICS[METRIC[sample.task]](text, sample.meta["row"]["answer"])
        return score.grade(text)

"""Puzzles drawn anew: the benchmark's squares, sudokus with one solution."""

import json
from pathlib import Path

import pytest

from dllm.tasks.parallelbench.puzzles import (
    Puzzles,
    completions,
    latin_squares,
    solutions,
    sudokus,
)


PUBLISHED = Path("../shared/data/parallelbench/puzzle/latin_square_n4.jsonl")


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is not there")
def test_the_procedure_makes_the_published_squares() -> None:
    published = [json.loads(line) for line in PUBLISHED.read_text().splitlines()]
    assert list(latin_squares(len(published))) == published


def test_sudokus_have_one_solution() -> None:
    assert len(solutions()) == 288
    assert completions("0" * 16) == 288
    rows = list(sudokus(20, givens=8))
    for row in [*rows, *(row["input"]["icl_examples"][0] for row in rows)]:
        cells = row["input"]["sudoku"].replace("\n", "")
        assert cells.count("0") == 8 and completions(cells) == 1
        assert row["answer"].replace("\n", "") in solutions()
    assert len({row["input"]["sudoku"] for row in rows}) == 20


def test_samples() -> None:
    task = Puzzles(None, count=3, givens=12)
    samples = task.samples("test")
    assert [sample.task for sample in samples] == ["latin_square", "sudoku"] * 3
    for sample in samples:
        assert task.assess(sample, f"Here:\n{sample.answer}").correct
        assert not task.assess(sample, "\n".join(sample.answer.split("\n")[:3])).correct
        (turn,) = sample.turns
        assert turn[0] != sample.prompt and turn[1]
    assert samples == task.samples("test", seed=1)


def test_bounds() -> None:
    with pytest.raises(ValueError, match=r"givens=4 is outside 5\.\.15"):
        Puzzles(None, 1, 4)
    with pytest.raises(ValueError, match="count=0"):
        Puzzles(None, 0, 12)

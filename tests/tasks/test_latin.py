"""Latin squares: all 576 of them, unique completions only."""

from random import Random

import pytest

from dllm.tasks.latin import LatinSquare, completions, squares


def test_all_latin_squares_of_order_four() -> None:
    found = squares()
    assert len(found) == len(set(found)) == 576
    for square in found:
        rows = [square[i : i + 4] for i in range(0, 16, 4)]
        assert all(set(line) == set("1234") for line in [*rows, *zip(*rows, strict=True)])


def test_completions_counts_what_a_direct_search_finds() -> None:
    rng = Random(0)
    for blanks in (0, 3, 8, 12, 16):
        square = rng.choice(squares())
        hidden = rng.sample(range(16), blanks)
        cells = "".join("." if i in hidden else c for i, c in enumerate(square))
        direct = sum(
            all(c in (".", s) for c, s in zip(cells, other, strict=True)) for other in squares()
        )
        assert completions(cells) == direct
    assert completions("11" + "." * 14) == 0


def test_squares_have_one_completion_the_answer() -> None:
    task, rng = LatinSquare(), Random(2)
    blanks = set()
    for _ in range(100):
        sample = task.draw("latin", rng)
        cells = sample.prompt.removeprefix("latin: ").replace(" ", "")
        answer = sample.answer.replace(" ", "")
        assert completions(cells) == 1 and completions(answer) == 1
        assert all(c in (".", a) for c, a in zip(cells, answer, strict=True))
        blanks.add(cells.count("."))
    assert blanks == {5, 6, 7, 8}


@pytest.mark.parametrize(("low", "high"), [(0, 8), (5, 12), (8, 5)])
def test_bounds_are_checked(low, high) -> None:
    with pytest.raises(ValueError, match=f"blanks {low} to {high}"):
        LatinSquare(low, high)

"""Intervals and paired tests against values worked out by hand."""

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm.metrics.statistics import mcnemar, wilson


Z = 1.959963984540054


@pytest.mark.parametrize(("correct", "n"), [(0, 4), (4, 4), (7, 10), (1055, 1319)])
def test_wilson_is_its_formula(correct: int, n: int) -> None:
    p = correct / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    assert wilson(correct, n) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_wilson_known_values() -> None:
    assert wilson(0, 4) == pytest.approx((0.0, 0.48989), abs=1e-5)
    assert wilson(7, 10) == pytest.approx((0.39678, 0.89221), abs=1e-5)
    low, high = wilson(1055, 1319)  # metrics section 2: 80 % of 1319 is +- 2.2 points
    assert (high - low) / 2 == pytest.approx(0.022, abs=5e-4)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_proportion(pair: tuple[int, int]) -> None:
    correct, n = pair
    low, high = wilson(correct, n)
    assert -1e-12 <= low <= correct / n <= high <= 1 + 1e-12


def gradings(gained: int, lost: int, both: int = 3) -> tuple[list[bool], list[bool]]:
    ours = [True] * gained + [False] * lost + [True] * both
    theirs = [False] * gained + [True] * lost + [True] * both
    return ours, theirs


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (5, 0, 2 / 2**5),
        (0, 6, 2 / 2**6),
        (8, 2, 2 * (1 + 10 + 45) / 2**10),  # two tails of Binomial(10, 1/2)
        (9, 1, 2 * (1 + 10) / 2**10),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p: float) -> None:
    ours, theirs = gradings(gained, lost)
    assert mcnemar(ours, theirs) == pytest.approx(p)
    assert mcnemar(theirs, ours) == pytest.approx(p)


def test_mcnemar_of_a_run_with_itself_is_one() -> None:
    ours, _ = gradings(4, 3)
    assert mcnemar(ours, ours) == 1.0


def test_mcnemar_needs_pairs() -> None:
    with pytest.raises(ValueError):
        mcnemar([True], [True, False])

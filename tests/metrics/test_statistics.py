"""Intervals and paired tests against values worked out by hand."""

from itertools import product
from math import comb, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm.metrics.statistics import (
    Paired,
    Verdict,
    difference_interval,
    equivalence,
    holm,
    mcnemar,
    minimum_detectable_effect,
    not_worse,
    ratio_interval,
    verdicts,
    wilson,
)


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
    low, high = wilson(1055, 1319)  # 80 % of 1319 is +- 2.2 points
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


def test_not_worse_is_tangos_score_test() -> None:
    # Tango 1998, the contact lens trial: 44 pairs, one lost, margin 0.1: z = 1.709, p = 0.044
    ours, theirs = gradings(0, 1, both=43)
    assert not_worse(ours, theirs, 0.1) == pytest.approx(0.0438, abs=1e-4)


def test_runs_that_never_disagree_are_equal_only_if_there_are_enough_samples() -> None:
    # no discordant pair: z = sqrt(n margin / (1 - margin)), the variance of the null hypothesis
    few, many = [True] * 20, [True] * 100
    assert equivalence(few, few, 0.05) == pytest.approx(0.15247, abs=1e-4)
    assert equivalence(many, many, 0.05) == pytest.approx(0.01092, abs=1e-4)


def test_equivalence_is_the_worse_of_both_sides() -> None:
    ours, theirs = gradings(2, 8, both=190)
    sides = [not_worse(ours, theirs, 0.05), not_worse(theirs, ours, 0.05)]
    assert equivalence(ours, theirs, 0.05) == max(sides) == sides[0]


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0])
def test_a_margin_is_a_share(margin: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        not_worse([True], [True], margin)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1, then never smaller than the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def row(gained: int, lost: int, both: int) -> Paired:
    return Paired.of(*gradings(gained, lost, both), margin=0.05)


def test_words_need_their_test() -> None:
    table = [row(20, 2, 200), row(2, 20, 200), row(0, 0, 400), row(1, 0, 9)]
    assert verdicts(table) == [Verdict.BETTER, Verdict.WORSE, Verdict.EQUAL, Verdict.UNDECIDED]


def test_a_table_is_corrected_as_a_whole() -> None:
    alone = row(6, 0, 100)  # p = 1/32
    assert verdicts([alone]) == [Verdict.BETTER]
    assert Verdict.BETTER not in verdicts([alone, row(5, 5, 100)])


def test_paired_difference() -> None:
    assert row(3, 1, 4).difference == pytest.approx(2 / 8)


@pytest.mark.parametrize(("n", "discordant"), [(8, 1.0), (10, 0.9)])
def test_minimum_detectable_effect_has_the_stated_power(n: int, discordant: float) -> None:
    effect = minimum_detectable_effect(n, discordant)
    assert effect is not None
    gained, lost = (discordant + effect) / 2, (discordant - effect) / 2
    power = 0.0
    for wins, losses in product(range(n + 1), repeat=2):
        if wins + losses <= n and mcnemar(*gradings(wins, losses)) < 0.05:
            ways = comb(n, wins) * comb(n - wins, losses)
            rest = (1 - discordant) ** (n - wins - losses)
            power += ways * gained**wins * lost**losses * rest
    assert power == pytest.approx(0.8, abs=1e-6)


def test_minimum_detectable_effect_shrinks_with_samples_and_may_not_exist() -> None:
    sizes = [minimum_detectable_effect(n, 0.2) for n in (100, 500, 1319)]
    assert all(size is not None for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert minimum_detectable_effect(5, 0.2) is None  # five disagreements are never significant


def test_bootstrap_intervals() -> None:
    ours, theirs = [1.0, 2.0, 3.0, 6.0] * 50, [1.0, 1.0, 1.0, 1.0] * 50
    low, high = difference_interval(ours, theirs)
    # mean 2, standard error sqrt(3.5 / 200)
    assert (low, high) == pytest.approx((2 - 0.26, 2 + 0.26), abs=0.03)
    assert ratio_interval(ours, theirs) == pytest.approx((low + 1, high + 1), abs=0.03)
    assert difference_interval(ours, theirs) == (low, high)
    assert difference_interval(ours, ours) == (0.0, 0.0)
    assert ratio_interval(ours, ours) == (1.0, 1.0)


def test_bootstrap_needs_pairs_and_spread() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        difference_interval([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="no spread"):
        difference_interval([1.0], [1.0])

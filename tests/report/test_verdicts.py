"""Paired differences: direct, at equal cost, and the words that they carry."""

import pytest
from written_cells import cell

from dllm.metrics.statistics import Verdict
from dllm.report.verdicts import Difference, said


HALF = [True] * 50 + [False] * 50


def test_a_direct_difference() -> None:
    found = Difference.between(cell([True] * 60 + [False] * 40, 4), cell(HALF, 8), 0.05)
    assert found.difference == pytest.approx(0.1) and found.forwards == 0.5
    assert 0 < found.low < 0.1 < found.high
    assert found.p == pytest.approx(2 / 2**10)  # ten of ten disagreements on one side


def test_the_control_is_the_mixture_of_equal_cost() -> None:
    """At 5 of 2..10 forwards the dear point has a share of 3/8."""
    curve = [cell([False] * 100, 2), cell([True] * 100, 10)]
    found = Difference.at_equal_cost(cell(HALF, 5), curve, 0.05)
    assert found is not None
    assert found.difference == pytest.approx(0.5 - 3 / 8) and found.forwards == 1.0
    assert found.low < found.difference < found.high
    assert 0.001 < found.p < 0.05  # +5/8 and -3/8, fifty of each
    assert found.p_equal == 1.0


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_mixture_with_hardly_any_disagreement(changed: int) -> None:
    curve = [cell([True] * 100, 2), cell([True] * 100, 10)]
    ours = cell([False] * changed + [True] * (100 - changed), 5)
    found = Difference.at_equal_cost(ours, curve, 0.05)
    assert found is not None and found.p == (1.0 if changed < 2 else 0.5)


def test_on_a_point_of_the_curve_the_control_is_that_run() -> None:
    curve = [cell([False] * 100, 2), cell(HALF, 10)]
    found = Difference.at_equal_cost(cell(HALF, 10), curve, 0.05)
    assert found == Difference.between(cell(HALF, 10), curve[1], 0.05)
    assert found is not None and found.difference == 0 and found.p == 1


@pytest.mark.parametrize("forwards", [1, 11])
def test_no_control_outside_of_the_curve(forwards: int) -> None:
    curve = [cell([False] * 100, 2), cell(HALF, 10)]
    assert Difference.at_equal_cost(cell(HALF, forwards), curve, 0.05) is None


def test_words_need_their_tests() -> None:
    many = [True] * 400 + [False] * 400
    differences = {
        ("better",): Difference.between(cell([True] * 600, 4), cell(HALF * 6, 4), 0.05),
        ("worse",): Difference.between(cell([False] * 600, 4), cell(HALF * 6, 4), 0.05),
        ("equal",): Difference.between(cell(many, 4), cell(many, 4), 0.05),
        ("undecided",): Difference.between(cell(HALF[:20], 4), cell(HALF[:20], 4), 0.05),
    }
    assert {key[0]: word for key, word in said(differences).items()} == {
        word.value: word for word in Verdict
    }
    small = differences["undecided",]
    assert small.detectable is None or small.detectable > 0.1


def test_holm_takes_back_a_chance_find() -> None:
    one = Difference.between(cell([True] * 57 + [False] * 43, 4), cell(HALF, 4), 0.05)
    assert one.p < 0.05
    assert said({("a",): one})["a",] is Verdict.BETTER
    alike = Difference.between(cell(HALF, 4), cell(HALF, 4), 0.05)
    crowd = {("a",): one, **{(str(i),): alike for i in range(20)}}
    assert said(crowd)["a",] is Verdict.UNDECIDED

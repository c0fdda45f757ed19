"""Worked examples of the factor rule."""

import math

import pytest
import torch
from written import A, offsets, one, picked, rule, step_of

from samplers.factor import Factor


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1, {0, 1, 5, 7}), (0.5, {0, 1, 5}), (1.5, {0, 1, 2, 5, 7}), (2, {0, 1, 2, 3, 5, 7})],
)
def test_factor(factor: float, expected: set[int]) -> None:
    assert picked(rule("factor", factor=factor), *A) == expected


@pytest.mark.parametrize(
    ("row", "official", "clean"),
    [((0.99, 0.99, 0.60), {0, 1, 2}, {0, 1}), ((0.9, 0.3), {0, 1}, {0}), ((0.1,), {0}, {0})],
)
def test_factor_last_rank(row: tuple[float, ...], official: set[int], clean: set[int]) -> None:
    assert one(rule("factor", factor=1, last_rank_quirk="true"), row) == official
    assert one(rule("factor", factor=1, last_rank_quirk="false"), row) == clean


def test_factor_at_equality() -> None:
    # The bound of rank 2 is 1 - 0.75 / 3 = 0.75.
    clean = rule("factor", factor=0.75, last_rank_quirk="false")
    assert picked(clean, 0.9, 0.75, 0.2, 0.1) == {0, 1}
    assert picked(clean, 0.9, math.nextafter(0.75, 0), 0.2, 0.1) == {0}


def test_factor_extremes() -> None:
    assert one(rule("factor", factor=1e9), A) == set(range(8))
    assert one(rule("factor", factor=1e-9, last_rank_quirk="false"), A) == {0}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.7, 0.9, 0.2, 0.76), {1, 3}),  # bounds by rank: 0.5, 0.667, 0.75, 0.8
        ((0.3, 0.5), {1}),
        ((0.3, 0.4999), set()),
    ],
)
def test_sure_without_a_certain_first(scores: tuple[float, ...], expected: set[int]) -> None:
    """Alone, the most confident position is sure from 1 - factor / 2 on."""
    factor = rule("factor", factor=1)
    assert isinstance(factor, Factor)
    step = step_of(factor, [0.5] * len(scores))
    sure = factor.sure(torch.tensor([scores], dtype=torch.float64), step.view, step.state)
    assert offsets(sure, step.view)[0] == expected

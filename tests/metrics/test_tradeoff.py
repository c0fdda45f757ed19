"""Summaries of sweeps against values worked out by hand or published with their inputs."""

import pytest

from dllm.metrics.tradeoff import (
    area,
    aup,
    fastest_at,
    oracle,
    order_preference,
    parallelisability,
    pareto,
)


def test_pareto_front() -> None:
    points = [(1.0, 80.0), (2.0, 80.0), (3.0, 70.0), (2.5, 60.0), (3.0, 65.0)]
    assert pareto(points) == [(2.0, 80.0), (3.0, 70.0)]
    assert pareto([(1.0, 5.0), (1.0, 5.0)]) == [(1.0, 5.0)]


def test_area_by_hand() -> None:
    # 80 from 1 to 2, 70 from 2 to 3, nothing from 3 to 4
    assert area([(2.0, 80.0), (3.0, 70.0)], up_to=4.0) == pytest.approx(150.0)
    assert area([(2.0, 80.0), (3.0, 70.0)], up_to=2.5) == pytest.approx(80 + 35)
    assert area([(1.0, 80.0)], up_to=4.0) == 0.0


@pytest.mark.parametrize(
    ("points", "best", "value"),
    [
        ([(1, 72.55)], 72.55, 72.55),
        ([(1, 74.79), (2.77, 74.68)], 74.98, 205.78),
        ([(9.11, 73.09), (1, 74.02)], 74.98, 637.65),
        ([(1, 80), (3, 78), (6, 70)], 80, 232.36),  # the last one is 10 below the first
        ([(1, 80), (3, 80), (6, 80)], 80, 480.0),
    ],
)
def test_accuracy_under_parallelism(points, best: float, value: float) -> None:
    assert aup(points, best) == pytest.approx(value, abs=0.02)


# ParallelBench's second version, LLaDA 1.5 under thresholds from 1.0 to 0.5.
THRESHOLDS = [(1.33, 86.4), (3.42, 83.8), (4.53, 77.5), (5.62, 68.3), (6.55, 57.9), (8.27, 47.2)]


@pytest.mark.parametrize(
    ("level", "interpolated", "measured"),
    [
        (90, None, None),
        (80, 4.0874, 3.42),
        (75, 4.8240, 4.53),
        (70, 5.4176, 4.53),
        (60, 6.3625, 5.62),
        (40, 8.27, 8.27),
    ],
)
def test_fastest_at_a_level(level: float, interpolated, measured) -> None:
    assert fastest_at(THRESHOLDS, level, interpolate=True) == pytest.approx(interpolated, abs=4e-3)
    assert fastest_at(THRESHOLDS, level, interpolate=False) == measured


def test_oracle_over_a_sweep() -> None:
    grades = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
    nfe = [[32, 32, 32, 32], [12, 16, 14, 20], [8, 9, 9, 12], [4, 4, 4, 4]]
    settings = [list(zip(g, n, strict=True)) for g, n in zip(grades, nfe, strict=True)]
    assert oracle(settings) == (1.0, 17.0)  # samples take 8, 16, 32 and 12


def test_oracle_takes_the_cheapest_of_equals() -> None:
    assert oracle([[(0, 8)], [(0, 2)], [(0, 4)]]) == (0.0, 2.0)


def test_parallelisability() -> None:
    assert parallelisability({1: 100, 2: 50, 4: 0}) == pytest.approx(200 / 150)
    assert parallelisability({1: 0, 2: 0}) == 0.0


def test_order_preference() -> None:
    assert order_preference({8: 0.8, 16: 0.6, 32: 0.2}) == pytest.approx(0.025)
    assert order_preference({8: 0.5, 32: 0.5}) == pytest.approx(0.0)

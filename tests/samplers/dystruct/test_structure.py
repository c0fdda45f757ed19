"""Dystruct (reconstruction): worked examples of the structure."""

from collections import Counter
from math import exp, inf, log
from typing import Any

import numpy as np
import pytest
import torch

from dllm.config import build, compose
from samplers.dystruct.structure import Signals, Structure


DICE = torch.Generator()
"""For what draws nothing unless it samples."""


def part(name: str, **options: Any) -> Any:
    given = [f"sampler.{name}.{key}={value}" for key, value in options.items()]
    return build(compose(["sampler=dystruct", *given]).sampler[name], name)


def structure(**options: Any) -> Structure:
    return part("structure", **options)


@pytest.mark.parametrize(
    ("p", "u"),
    [([0.97, 0.03], 0.0344), ([0.5, 0.5], 0.35), ([0.25] * 4, 0.575), ([1 / 64] * 64, 0.9922)],
)
def test_instability(p: list[float], u: float):  # D1
    logits = torch.full((1, 1, 67), -inf, dtype=torch.float64)
    logits[0, 0, 3 : 3 + len(p)] = torch.tensor(p).log()
    # The mask is no token.
    logits[0, 0, 0] = 9.0
    signals = Signals.of(logits, [4], (3,), 0)
    assert signals.instability[0, 0] == pytest.approx(u, abs=1e-4)
    d, e = (p[1] if len(p) > 1 else 0), p[0]
    assert signals.boundary[0, 0] == pytest.approx(1 - (1 - d) * (1 - e))
    assert signals.end[0, 0] == pytest.approx(e)


def test_tables():  # D2
    lp = structure().log_prior
    found = [lp[n - 4] for n in (4, 5, 8, 16, 31, 32)]
    assert found == pytest.approx([-1.6094, -2.0149, -2.8904, -4.2195, -5.5134, -2.0794], abs=1e-4)
    assert np.exp(lp).sum() == pytest.approx(1)
    for alpha, mean in ((0.3, 22.2), (1, 11.9), (4, 5.3)):
        prior = np.exp(structure(concentration=alpha).log_prior)
        assert (prior * np.arange(4, 33)).sum() == pytest.approx(mean, abs=0.05)
    g = structure().boundary_evidence(np.array([0.01, 0.05, 0.5, 0.9, 1.0]))
    assert g == pytest.approx([-1.6507, 0, 2.9444, 5.1417, 9.8512], abs=1e-4)


@pytest.mark.parametrize(("expected", "score"), [(12, 23.521), (20, 26.759), (28, 26.162)])
def test_a_window_ends_where_confidence_does(expected: float, score: float):  # D3
    u = np.array([0.1] * 10 + [0.2] * 12 + [0.85] * 10)
    b, e = np.full(32, 0.01), np.zeros(32)
    b[9], b[21] = 0.9, 0.8
    rule = structure()
    assert rule.window(u, b, e, expected, DICE) == [10, 12]
    evidence, _ = rule.recursion(u, b)
    assert rule.log_posterior(evidence, e, expected)[21] == pytest.approx(score, abs=1e-3)


def test_a_window_does_not_run_past_the_end():  # D4
    u = np.array([0.1] * 15 + [0.03] * 17)
    b, e = np.full(32, 0.01), np.zeros(32)
    b[9], b[15:], e[15:] = 0.9, 0.97, 0.97
    assert structure().window(u, b, e, 28, DICE) == [10, 6]
    assert structure(end_weight=0.0).window(u, b, e, 28, DICE) == [10, 6, 4, 4, 4, 4]


def test_a_window_by_hand():  # D5
    b, none = np.full(8, 0.05), np.zeros(8)
    b[2], b[7] = 0.9, 0.5
    rule = structure(min_block=2, max_block=8, instability_weight=0.0)
    evidence, _ = rule.recursion(none, b)
    by_hand = [-1.0986, 3.3499, -1.5554, 2.2641, 1.5895, 1.8165, 4.6354]
    assert evidence[2:] == pytest.approx(by_hand, abs=1e-4)
    posterior = rule.log_posterior(evidence, none, 5)
    expected = [-3.5729, 1.3865, -3.2957, 0.5238, -0.3331, -0.4426, 1.9063]
    assert posterior[1:] == pytest.approx(expected, abs=1e-4)
    assert rule.window(none, b, none, 5, DICE) == [3, 5]


def test_change_points():  # D6, D7
    flat, none = np.full(16, 0.01), np.zeros(16)
    rule = structure(length_mode="all", boundary_weight=0.0)
    assert rule.window(np.array([0.05] * 8 + [0.7] * 8), flat, none, 5, DICE) == [8, 8]
    assert rule.window(np.full(16, 0.4), flat, none, 5, DICE) == [16]
    fixed = structure(length_mode="all", min_block=8, max_block=8)
    assert fixed.window(np.full(32, 0.4), np.full(32, 0.01), np.zeros(32), 5, DICE) == [8] * 4


def test_the_prior_alone_takes_the_expected_length_and_the_shorter_of_a_tie():
    u, b, e = np.full(32, 0.4), np.full(32, 0.01), np.zeros(32)
    rule = structure(length_mode="prior")
    assert sum(rule.window(u, b, e, 12, DICE)) == 11
    assert sum(rule.window(u, b, e, 12.5, DICE)) == 12


def test_no_more_is_expected_than_the_look_ahead_holds():
    """At the end of the canvas: lambda is 8, and 7 is as likely."""
    u, b, e = np.full(8, 0.4), np.full(8, 0.01), np.zeros(8)
    for expected in (8, 30):
        assert sum(structure(length_mode="prior").window(u, b, e, expected, DICE)) == 7


def test_limits_of_the_concentration():
    u, b, e = np.full(32, 0.4), np.full(32, 0.05), np.zeros(32)
    off = {"length_mode": "all", "instability_weight": 0.0, "boundary_weight": 0.0}
    assert structure(concentration=1e-6, **off).window(u, b, e, 5, DICE) == [32]
    assert structure(concentration=1e6, **off).window(u, b, e, 5, DICE) == [4] * 8


def test_what_is_too_short_is_one_block():
    assert structure().window(np.full(3, 0.4), np.full(3, 0.01), np.zeros(3), 8, DICE) == [3]


def by_hand(rule: Structure, b: np.ndarray, expected: float) -> dict[tuple[int, ...], float]:
    """Probability of every window, by enumeration (instability and ends without weight)."""
    g, weights = rule.boundary_evidence(b), {}

    def extend(blocks: tuple[int, ...]) -> None:
        length = sum(blocks)
        if blocks:
            prior = length * log(expected) - sum(log(k) for k in range(1, length + 1))
            evidence = sum(rule.log_prior[n - rule.min_block] for n in blocks)
            borders = np.cumsum(blocks) - 1
            weights[blocks] = exp(prior + evidence + g[borders].sum())
        for n in range(rule.min_block, min(rule.max_block, len(b) - length) + 1):
            extend((*blocks, n))

    extend(())
    return {blocks: weight / sum(weights.values()) for blocks, weight in weights.items()}


def test_sampled_windows_follow_the_posterior():
    b, none = np.full(8, 0.05), np.zeros(8)
    b[2], b[7] = 0.2, 0.1
    rule = structure(
        min_block=2, max_block=8, instability_weight=0.0, end_weight=0.0, inference="sample"
    )
    expected, generator = by_hand(rule, b, 5), torch.Generator().manual_seed(0)
    draws = 4000
    found = Counter(tuple(rule.window(none, b, none, 5, generator)) for _ in range(draws))
    assert found.keys() <= expected.keys()
    for blocks, p in expected.items():
        # Five standard deviations.
        assert abs(found[blocks] / draws - p) <= 5 * (p * (1 - p) / draws) ** 0.5 + 1e-3, blocks
    assert len(found) > 10


@pytest.mark.parametrize("inference", ["map", "sample"])
def test_a_partition_fills_the_window_it_is_given(inference: str):
    """Also where other predictions than those that set the window's end are read (a veto)."""
    rule, draw = structure(inference=inference), np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    for length in (1, 3, 4, 5, 11, 24):
        blocks = rule.partition(draw.random(24), draw.random(24), length, generator)
        assert sum(blocks) == length
        assert all(4 <= n <= 32 for n in blocks) or length < 4


def test_sampled_windows_by_the_prior_alone_are_poisson():
    u, b, none = np.full(16, 0.4), np.full(16, 0.05), np.zeros(16)
    rule = structure(min_block=1, length_mode="prior", inference="sample")
    generator = torch.Generator().manual_seed(0)
    lengths = [rule.length(u, b, none, 4, generator) for _ in range(3000)]
    # Mean of a Poisson law at 4 without 0 and what is above 16.
    assert np.mean(lengths) == pytest.approx(4 / (1 - exp(-4)), abs=0.15)


def test_samples_of_sure_evidence_are_its_maximum():
    b, none = np.full(8, 0.01), np.zeros(8)
    b[2], b[7] = 0.9, 0.5
    options = {"min_block": 2, "max_block": 8, "instability_weight": 0.0, "boundary_weight": 40.0}
    best = structure(**options).window(none, b, none, 5, DICE)
    assert best == [3, 5]
    sampled = structure(inference="sample", **options)
    generator = torch.Generator().manual_seed(0)
    assert all(sampled.window(none, b, none, 5, generator) == best for _ in range(20))


@pytest.mark.parametrize(
    ("unrest", "expected"), [(0, 64), (0.1, 58.4), (0.5, 36), (1, 8), (-1, 32)]
)
def test_expected_length(unrest: float, expected: float):  # D10
    assert part("region").expected(unrest) == pytest.approx(expected)


def test_entropy_scale():
    assert Signals.of(torch.zeros(1, 1, 33), [5], (3,), 0).instability[0, 0] == pytest.approx(
        0.5 + 0.5 * (1 - 1 / 32)
    )
    assert log(32) == pytest.approx(3.4657, abs=1e-4)

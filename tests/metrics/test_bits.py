"""Budgets of rules in bits, and the least number of rounds."""

from math import e, inf, log, log2

import pytest

from dllm.metrics.bits import Bound, FactorBudget, FloorBudget, Round, bits


def rounds(*probabilities: list[float], most: int, block: int = 0) -> list[Round]:
    return [Round(block, most, p) for p in probabilities]


PATH = rounds([0.99, 0.95, 0.92], [0.40], [0.98, 0.97, 0.91, 0.90], [0.60], [0.999, 0.93], most=8)


def test_a_path_by_hand() -> None:
    assert [one.bits for one in PATH] == pytest.approx(
        [0.2088, 1.3219, 0.3612, 0.7370, 0.1061], abs=5e-5
    )
    assert sum(one.bits for one in PATH) == pytest.approx(2.7350, abs=5e-5)
    budget = FloorBudget(0.9)
    assert budget.bits(8) == pytest.approx(1.2160, abs=5e-5)
    bound = Bound.of(PATH, budget)
    assert (bound.forced, bound.rounds) == (2, 3)
    assert bound.sure_bits == pytest.approx(0.6761, abs=5e-5)
    assert bound.forced_bits == pytest.approx(2.0589, abs=5e-5)


def test_blocks_add_up() -> None:
    half = rounds([0.9], [0.9], most=2), rounds([0.9], [0.9], most=2, block=1)
    assert Bound.of(half[0], FloorBudget(0.9)).rounds == 1
    assert Bound.of([*half[0], *half[1]], FloorBudget(0.9)).rounds == 2


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.99, 0.464), (0.95, 2.368), (0.9, 4.864), (0.8, 10.302), (0.6, 23.583), (0.5, 32.0)],
)
def test_threshold(threshold: float, expected: float) -> None:
    assert FloorBudget(threshold).bits(32) == pytest.approx(expected, abs=5e-4)


def test_factor() -> None:
    """For factor 1 a round stays below one nat; three tokens carry 1.2451 bits at most."""
    assert FactorBudget(1.0).bits(3) == pytest.approx(1.2451, abs=5e-5)
    nats = [FactorBudget(1.0).bits(n) * log(2) for n in (1, 2, 4, 8, 16, 32)]
    assert nats == pytest.approx([0.6931, 0.8109, 0.8926, 0.9423, 0.9700, 0.9847], abs=5e-5)
    assert FactorBudget(1.0).bits(10_000) < log2(e)
    nats = [FactorBudget(1.5).bits(n) * log(2) for n in (1, 2, 4, 8, 32)]
    assert nats == pytest.approx([1.3863, 1.3863, 1.4267, 1.4586, 1.4886], abs=5e-5)


def test_what_bounds_nothing() -> None:
    assert FactorBudget(2.0).bits(4) == FloorBudget(0.0).bits(4) == inf
    assert Bound.of(rounds([0.5, 0.5], most=2), FloorBudget(0.0)).rounds == 0
    # Sure of everything: a threshold of 1 carries nothing.
    assert Bound.of(rounds([1.0, 1.0], [0.3], most=3), FloorBudget(1.0)).rounds == 1


def test_a_probability_that_underflowed_has_finite_bits() -> None:
    assert bits(0.0) == bits(2.0**-149) == 149

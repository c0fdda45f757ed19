"""Exact distributions: ParallelBench's closed forms, and what this repository's rules make of
them."""

from math import factorial, log2, perm, prod, sqrt

import numpy as np
import pytest
from tiny_decoding import sampler
from toy_model import decoded, rounds, text

from dllm.step.sampler import Sampler
from dllm.tasks.toy_oracle import ToyOracle


TOY_2 = ToyOracle(
    {
        **{f"A{p}{r}{t}": 0.0625 for p in "pq" for r in "rs" for t in "tu"},
        "Bprt": 0.3,
        "Cqst": 0.1,
        "Cqsu": 0.1,
    }
)


def test_probabilities_follow_by_counting() -> None:
    assert TOY_2.alphabet == "ABCpqrstu"
    first, second, _, last = TOY_2.conditionals("....")
    np.testing.assert_allclose(first[:3], [0.5, 0.3, 0.2])
    assert second[3] == pytest.approx(0.55) and last[7] == pytest.approx(0.65)
    assert [TOY_2.entropy([i]) for i in range(4)] == pytest.approx(
        [1.485, 0.993, 0.993, 0.934], abs=1e-3
    )
    _, second, third, last = TOY_2.conditionals("C...")
    assert second[4] == third[6] == 1.0
    assert last[7] == pytest.approx(0.5)


def test_what_contradicts_every_text_tells_nothing() -> None:
    np.testing.assert_array_equal(TOY_2.conditionals("Bq.."), TOY_2.conditionals("...."))


@pytest.mark.parametrize("items", [3, 4, 5, 6])
def test_total_correlation_in_closed_form(items: int) -> None:
    everything = range(items)
    replaced = ToyOracle.replace_random(items).total_correlation(everything)
    assert replaced == pytest.approx((items - 1) * (log2(items) - log2(items - 1)))
    shuffled = ToyOracle.shuffle(items).total_correlation(everything)
    assert shuffled == pytest.approx(items * log2(items) - log2(factorial(items)))
    copied = ToyOracle({"ABCDEF"[:items]: 1.0}).total_correlation(everything)
    assert copied == 0.0


@pytest.mark.parametrize(
    ("parts", "shuffle", "replace"),
    [
        ([6], 6.0179, 1.3152),
        ([4, 2], 2.8480, None),
        ([5, 1], None, 0.6652),
        ([3, 2, 1], 1.4330, 0.2834),
        ([2, 2, 2], 1.6781, 0.4635),
        ([2, 2, 1, 1], 0.6781, 0.1301),
        ([1] * 6, 0.0, 0.0),
    ],
)
def test_divergence_of_schedules_of_six(
    parts: list[int], shuffle: float | None, replace: float | None
) -> None:
    positions = iter(range(6))
    schedule = [[next(positions) for _ in range(size)] for size in parts]
    for oracle, expected in (
        (ToyOracle.shuffle(6), shuffle),
        (ToyOracle.replace_random(6), replace),
    ):
        if expected is not None:
            assert oracle.divergence(schedule) == pytest.approx(expected, abs=6e-5)


def test_independent_positions_cost_nothing_in_one_step() -> None:
    oracle = ToyOracle.independent([{"x": 0.85, "y": 0.15}] * 3)
    assert oracle.divergence([[0, 1, 2]]) == pytest.approx(0.0, abs=1e-12)
    assert oracle.entropy(range(3)) == pytest.approx(3 * oracle.entropy([0]))


def threshold(value: float) -> Sampler:
    return sampler("sampler=threshold", f"sampler.threshold={value}")


@pytest.mark.parametrize(
    ("oracle", "value", "answer", "count"),
    [
        # Replace: right above (n - 1) / n. The border itself is as exact as a logarithm.
        (ToyOracle.replace_random(4), 0.70, "ABCD", 1),
        (ToyOracle.replace_random(4), 0.75 - 1e-12, "ABCD", 1),
        (ToyOracle.replace_random(4), 0.76, "ABCF", 4),
        # Shuffle: right above one half.
        (ToyOracle.shuffle(4), 0.50, "ABCC", 3),
        (ToyOracle.shuffle(4), 0.51, "ABCD", 4),
    ],
)
def test_threshold_on_an_ideal_model(
    oracle: ToyOracle, value: float, answer: str, count: int
) -> None:
    (outcome,) = decoded(threshold(value), oracle)
    assert text(oracle, outcome) == answer
    assert len(rounds(outcome)) == outcome.cost.nfe == count
    assert (answer in oracle.weights) == (value > (0.75 if "F" in oracle.alphabet else 0.5))


@pytest.mark.parametrize("per_step", [1, 2, 4])
@pytest.mark.parametrize("task", ["shuffle", "replace"])
def test_accuracy_of_a_quota_that_draws(task: str, per_step: int) -> None:
    """Values drawn from exact probabilities: within four standard errors of the closed form."""
    items, count = 4, 400
    rule = sampler(
        "sampler=low_confidence",
        # Blocks as large as a step: the order owes nothing to the values.
        f"sampler.region.block_length={per_step}",
        f"sampler.steps={items // per_step}",
        "sampler/proposer=gumbel",
        "sampler.proposer.temperature=1.0",
    )
    oracle = ToyOracle.shuffle(items)
    left = range(items, 0, -per_step)
    expected = prod(perm(m, per_step) / m**per_step for m in left)
    if task == "replace":
        oracle, expected = ToyOracle.replace_random(items), {1: 1.0, 2: 0.6562, 4: 0.4219}[per_step]
    found = decoded(rule, oracle, count, batch_size=100, record=False)
    right = np.mean([text(oracle, outcome) in oracle.weights for outcome in found])
    assert abs(right - expected) <= 4 * sqrt(expected * (1 - expected) / count)

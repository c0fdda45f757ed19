"""Closed forms against the paper's and enumerated values."""

from itertools import permutations
from math import e, log2

import pytest

from dllm.tasks.parallelbench.theory import equal_steps, lower_bound, sampled_accuracy
from dllm.tasks.toy_oracle import ToyOracle


@pytest.mark.parametrize(
    ("items", "replace", "shuffle"),
    [(3, 1.1699, 2.1699), (4, 1.2451, 3.4150), (5, 1.2877, 4.7028), (6, 1.3152, 6.0179)],
)
def test_total_correlation(items: int, replace: float, shuffle: float) -> None:
    assert lower_bound("copy", [items]) == 0
    assert lower_bound("replace_random", [items]) == pytest.approx(replace, abs=1e-4)
    assert lower_bound("shuffle", [items]) == pytest.approx(shuffle, abs=1e-4)


@pytest.mark.parametrize(
    ("items", "replace", "shuffle"),
    [(4, 0.6226, 1.4150), (6, 0.4635, 1.6781), (10, 0.3148, 2.0227)],
)
def test_two_per_step(items: int, replace: float, shuffle: float) -> None:
    sizes = equal_steps(items, 2)
    assert lower_bound("replace_random", sizes) == pytest.approx(replace, abs=1e-4)
    assert lower_bound("shuffle", sizes) == pytest.approx(shuffle, abs=1e-4)


@pytest.mark.parametrize(
    ("sizes", "replace", "shuffle"),
    [((5, 1), 0.6652, None), ((4, 2), None, 2.8480), ((3, 2, 1), 0.2834, 1.4330)],
)
def test_uneven_steps(sizes: tuple[int, ...], replace, shuffle) -> None:
    if replace is not None:
        assert lower_bound("replace_random", sizes) == pytest.approx(replace, abs=1e-4)
    if shuffle is not None:
        assert lower_bound("shuffle", sizes) == pytest.approx(shuffle, abs=1e-4)


def test_one_at_a_time_loses_nothing() -> None:
    for kind in ("copy", "replace_random", "shuffle"):
        assert lower_bound(kind, (1,) * 7) == pytest.approx(0.0, abs=1e-9)
        assert sampled_accuracy(kind, (1,) * 7) == pytest.approx(1.0)


def test_limit_of_many_items() -> None:
    assert lower_bound("replace_random", [10**6]) == pytest.approx(log2(e), abs=1e-5)


@pytest.mark.parametrize("items", [3, 4])
@pytest.mark.parametrize("kind", ["replace_random", "shuffle"])
def test_one_step_by_enumeration(kind: str, items: int) -> None:
    """KL divergence of the true answers from independent draws of each position."""
    originals = "abcdef"[:items]
    if kind == "shuffle":
        answers = ["".join(order) for order in permutations(originals)]
    else:
        answers = [originals[:i] + "X" + originals[i + 1 :] for i in range(items)]
    shares = [{c: sum(a[i] == c for a in answers) / len(answers) for c in originals + "X"}
              for i in range(items)]  # fmt: skip
    lost, right = 0.0, 0.0
    for answer in answers:
        drawn = 1.0
        for position, item in enumerate(answer):
            drawn *= shares[position][item]
        lost += log2(1 / len(answers) / drawn) / len(answers)
        right += drawn
    assert lower_bound(kind, [items]) == pytest.approx(lost)  # type: ignore[arg-type]
    assert sampled_accuracy(kind, [items]) == pytest.approx(right)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "items", "per_step", "accuracy"),
    [
        ("shuffle", 4, 2, 0.375),
        ("shuffle", 6, 2, 0.3125),
        ("shuffle", 10, 2, 0.2461),
        ("shuffle", 6, 6, 0.01543),
        ("replace_random", 4, 2, 0.6562),
        ("replace_random", 6, 2, 0.7335),
        ("replace_random", 10, 10, 0.3874),
    ],
)
def test_accuracies(kind, items: int, per_step: int, accuracy: float) -> None:
    assert sampled_accuracy(kind, equal_steps(items, per_step)) == pytest.approx(accuracy, abs=1e-4)


def test_steps_of_equal_size() -> None:
    assert equal_steps(6, 4) == (4, 2)
    assert equal_steps(6, 6) == (6,)


@pytest.mark.parametrize("sizes", [(2, 2, 1), (3, 2), (1, 4)])
@pytest.mark.parametrize("kind", ["replace_random", "shuffle"])
def test_any_schedule_by_the_toy_oracle(kind: str, sizes: tuple[int, ...]) -> None:
    oracle = getattr(ToyOracle, kind)(sum(sizes))
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    parts = [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    assert lower_bound(kind, sizes) == pytest.approx(oracle.divergence(parts))  # type: ignore[arg-type]

"""Worked examples of the confidence threshold."""

import math

import pytest
from written import A, commits, in_float32, offsets, one, picked, rule, step_of, steps

from dllm.errors import ConfigError


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.9, {0, 5}), (0.75, {0, 1, 2, 5, 7}), (0.99, {0}), (1.0, {0}), (0.0, set(range(8)))],
)
def test_threshold(threshold: float, expected: set[int]) -> None:
    assert one(rule("threshold", threshold=threshold), A) == expected


def test_threshold_at_equality_and_in_each_dtype() -> None:
    # exp(0) / (exp(0) + 23 exp(l)) is 0.5 exactly in float32 and float64.
    row = {0: [0.0] + [-math.inf] * 22 + [0.0]}
    for dtype in ("float64", "float32", "model"):
        strict = rule("threshold", threshold=0.5, conf_dtype=dtype)
        step = step_of(strict, [0.9, 0.5], logits={1: row[0]})
        assert offsets(step.decide().commit, step.view) == [{0, 1}]
        step.view = in_float32(step.view)
        assert offsets(step.decide().commit, step.view) == [{0, 1}]


def test_threshold_over_two_blocks() -> None:
    assert steps("threshold", threshold=0.9) == [[0], [1], [2], [3], [5], [7], [4], [6]]
    assert steps("threshold", threshold=0.75) == [[0, 1, 2], [3], [5, 7], [4], [6]]


def test_ties_go_to_the_first_position() -> None:
    assert picked(rule("threshold", threshold=0.99), 0.5, 0.7, 0.7, 0.7) == {1}
    quota = rule("low_confidence", steps=2, **{"region.block_length": "null"})
    assert picked(quota, 0.2, 0.9, 0.9, 0.9) == {1, 2}


def test_rows_of_a_batch_are_decided_alone() -> None:
    for name in ("threshold", "factor", "localleap"):
        apart = [one(rule(name), row) for row in (A, A[::-1], (0.95, 0.2))]
        assert commits(rule(name), A, A[::-1], (0.95, 0.2)) == apart


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"sampler.threshold=1.5 is outside \[0, 1\]"),
        ({"threshold": -0.1}, r"sampler.threshold=-0.1 is outside \[0, 1\]"),
        ({"threshold": "abc"}, "sampler.threshold='abc' is not of type"),
        ({"factor": 1.0}, "factor"),
    ],
)
def test_refused_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule("threshold", **options)

"""Worked examples of LocalLeap."""

import pytest
from written import A, offsets, one, rule, step_of, steps


@pytest.mark.parametrize(
    ("row", "radius", "expected"),
    [
        (A, 4, {0, 1, 2, 5, 7}),
        (A, 1, {0, 1, 5}),
        (A, 0, {0, 5}),
        ((0.89, 0.80, 0.76, 0.70), 4, {0}),
        ((0.95, *[0.8] * 9), 4, {0, 1, 2, 3, 4}),
        ((0.95, 0.74, None, 0.50, 0.77, 0.76, 0.92, 0.30), 2, {0, 4, 5, 6}),
    ],
)
def test_localleap(row: tuple[float | None, ...], radius: int, expected: set[int]) -> None:
    assert one(rule("localleap", radius=radius), row) == expected


def test_localleap_stays_in_its_block() -> None:
    committed = steps("localleap", (0.1, 0.2, 0.3, 0.95, 0.8, 0.7, 0.6, 0.5))
    assert committed[0] == [3]
    assert committed.index([4]) > 3


def test_localleap_marks_its_anchors() -> None:
    step = step_of(rule("localleap"), A)
    assert offsets(step.decide().marks["anchors"], step.view) == [{0, 5}]


def test_relaxed_above_the_anchor_threshold_warns() -> None:
    with pytest.warns(UserWarning, match="relaxed_threshold=0.95 exceeds"):
        rule("localleap", relaxed_threshold=0.95)

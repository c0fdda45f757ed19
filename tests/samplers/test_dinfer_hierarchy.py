"""Worked examples of dInfer's hierarchical rule."""

from dataclasses import replace

import pytest
import torch
from written import commits, offsets, one, picked, rule, step_of


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((0.95, 0.50, None, 0.30, 0.20, None, 0.41, 0.85), {0, 7}),
        ((0.35, 0.30, 0.20), {0}),
    ],
)
def test_hierarchy(row: tuple[float | None, ...], expected: set[int]) -> None:
    assert one(rule("dinfer_hierarchy", threshold=0.9, low_threshold=0.4), row) == expected


def test_hierarchy_ties_and_strictness() -> None:
    written = rule("dinfer_hierarchy", threshold=0.9, low_threshold=0.4)
    assert picked(written, 0.6, 0.6, 0.5) == {0, 1}
    assert picked(written, 0.4, 0.3) == {0}
    assert picked(written, 0.95, 0.9, 0.9) == {0}
    free = rule("dinfer_hierarchy", threshold="null", low_threshold="null")
    assert one(free, (0.2, 0.1, None, 0.05, 0.03)) == {0, 3}


def test_hierarchy_row_by_row() -> None:
    written = rule("dinfer_hierarchy", threshold=0.9, low_threshold=0.4)
    rows = ((0.95, 0.5, None, 0.41), (0.3, 0.2), (None, 0.7, 0.6, None, 0.5))
    assert commits(written, *rows) == [one(written, row) for row in rows]


def test_hierarchy_in_half_precision() -> None:
    """The log-softmax is rounded before its exponential is: 0.676 in bfloat16, where a softmax
    gives 0.672."""
    written = rule("dinfer_hierarchy", threshold=0.673, low_threshold=0.9)
    step = step_of(written, (0.95, 0.675))
    view = replace(step.view, logits=step.view.logits.bfloat16())
    decision = written.select(view, step.state)
    assert decision.score.dtype == torch.bfloat16
    assert offsets(decision.commit, view) == [{0, 1}]

"""The sentence that sums up a chapter's tests."""

from types import SimpleNamespace
from typing import Any

from dllm.metrics.statistics import Verdict
from dllm.report.page import _summary
from dllm.report.verdicts import Difference


def test_the_median_is_of_those_that_can_show() -> None:
    """Not of those that are too few samples to show anything."""
    differences = {
        ("task", str(number)): Difference(0.0, -0.1, 0.1, 1.0, 1.0, 1.0, detectable)
        for number, detectable in enumerate([None, 0.2, None, 0.3, 0.1, None])
    }
    measured: Any = SimpleNamespace(
        at_equal_cost=lambda: differences,
        beside=dict,
        floors=dict,
        ceilings=dict,
        margin=0.05,
    )
    (said,) = _summary(measured, dict.fromkeys(differences, Verdict.UNDECIDED))
    assert said.endswith("6 undecided (3 of them can show, the median from 0.20 on).")

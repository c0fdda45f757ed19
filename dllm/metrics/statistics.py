"""Intervals and paired tests of accuracies."""

from collections.abc import Sequence

from scipy.stats import binomtest


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion, both ends in [0, 1]."""
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Exact two-sided McNemar p-value of paired gradings; 1 if they never disagree."""
    gained = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    lost = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0

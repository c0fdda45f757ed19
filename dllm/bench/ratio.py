"""Timing two things as a ratio: alternating, in one process, on one machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """Seconds of both sides, medians over the repetitions, and the median of the paired ratios."""

    ours: float
    reference: float
    ratio: float
    low: float
    high: float
    """Smallest and largest paired ratio."""


def alternate(
    ours: Callable[[], object],
    reference: Callable[[], object],
    repeats: int,
    warm_up: bool = True,
) -> Ratio:
    """Runs both sides `repeats` times in turn, after one warm-up of each unless they run for so
    long that it would change nothing."""
    if warm_up:
        ours()
        reference()
    pairs = [(seconds(ours), seconds(reference)) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    return Ratio(
        median(a for a, _ in pairs),
        median(b for _, b in pairs),
        median(ratios),
        min(ratios),
        max(ratios),
    )


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

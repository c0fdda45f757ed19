"""Numbers that sum up a sweep of speed against quality.

A point is (tokens per forward, score); a sweep is the points of one method over one of its knobs.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp

import numpy as np


Point = tuple[float, float]
"""(tokens per forward, score)."""


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other one equals or beats in both and beats in one, by rising speed."""
    front: list[Point] = []
    for speed, score in sorted(set(points), reverse=True):
        if not front or score > front[-1][1]:
            front.append((speed, score))
    return front[::-1]


def area(points: Sequence[Point], up_to: float) -> float:
    """Integral of the best score at a speed of at least x, x from 1 to `up_to`; 0 beyond the
    fastest point."""
    total, reached = 0.0, 1.0
    for speed, score in pareto(points):
        end = min(speed, up_to)
        total += score * max(0.0, end - reached)
        reached = max(reached, end)
    return total


def aup(points: Sequence[Point], best: float, alpha: float = 3.0, tolerance: float = 5.0) -> float:
    """Accuracy under parallelism, as the d3LLM project defines it; scores in percent.

    best: the highest score of any method compared on the task: the value depends on the company
    tolerance: points that are more than this below the slowest one are left out

    The first point counts with its full score, the others weighted by how far they fall from
    `best`: rho_1 y_1 + sum (rho_i - rho_{i-1}) (y_i w(y_i) + y_{i-1} w(y_{i-1})) / 2.
    """

    if not best:  # and so no score above 0
        return 0.0

    def weighted(score: float) -> float:
        return score * min(exp(-alpha * (1 - score / best)), 1.0)

    ordered = sorted(points)
    slowest = ordered[0][1]
    kept = [(speed, score) for speed, score in ordered if score >= slowest - tolerance]
    rest = sum((b - a) * (weighted(y) + weighted(x)) / 2 for (a, x), (b, y) in pairwise(kept))
    return kept[0][0] * kept[0][1] + rest


def fastest_at(points: Sequence[Point], level: float, interpolate: bool) -> float | None:
    """ParallelBench's PBx: the largest speed with a score of at least `level`, None if there is
    none.

    interpolate: between neighbours on both sides of `level`; only for a knob that has values
    between them (a threshold has, a number of tokens per step has not)
    """
    ordered = sorted(points)
    found = [speed for speed, score in ordered if score >= level]
    if interpolate:
        for (a, x), (b, y) in pairwise(ordered):
            if (x < level) != (y < level):
                found.append(a + (b - a) * (level - x) / (y - x))
    return max(found, default=None)


def oracle(settings: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """Mean score and mean NFE if every sample took its best setting: of those that reach its best
    score the one with the fewest forwards. An upper bound that looks at the labels.

    settings: per setting of the sweep, per sample: (score, NFE)
    """
    chosen = []
    for tries in zip(*settings, strict=True):
        best = max(score for score, _ in tries)
        chosen.append((best, min(nfe for score, nfe in tries if score == best)))
    return sum(s for s, _ in chosen) / len(chosen), sum(n for _, n in chosen) / len(chosen)


def parallelisability(scores: Mapping[float, float]) -> float:
    """Mean tokens per step, weighted by the score there (ParallelBench's figure 6); 0 if no score
    is above 0.

    scores: tokens per step -> score
    """
    total = sum(scores.values())
    return sum(k * score for k, score in scores.items()) / total if total else 0.0


def order_preference(scores: Mapping[float, float]) -> float:
    """How much the score falls per position that blocks grow: positive = better with small blocks.

    scores: block length -> score, two lengths at least
    """
    slope, _ = np.polyfit(list(scores), list(scores.values()), 1)
    return -float(slope)

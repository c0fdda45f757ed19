"""Intervals and paired tests: what has to stand behind `better`, `worse` or `equal`.

Gradings are paired by sample. McNemar asks whether two runs differ, two one-sided score tests
(Tango, Statistics in Medicine 17, 1998) whether they differ by less than a margin; Holm corrects
both over the rows of a table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import Any, Protocol

import numpy as np
import scipy  # its parts are loaded when they are used: they take longer than all of ours


ALPHA = 0.05


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion, both ends in [0, 1]."""
    interval = scipy.stats.binomtest(correct, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Exact two-sided McNemar p-value of paired gradings; 1 if they never disagree."""
    gained, lost = _discordant(ours, theirs)
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def not_worse(ours: Sequence[bool], theirs: Sequence[bool], margin: float) -> float:
    """One-sided p-value of "our accuracy is at least `margin` (in (0, 1)) below theirs".

    Tango's score test: the variance is that of the null hypothesis, so runs that never disagree
    are not for that reason alone found equal.
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin={margin} is outside (0, 1)")
    n = len(ours)
    if n == 0:
        return 1.0
    gained, lost = _discordant(ours, theirs)
    difference = -margin
    # likelihood of the discordant cells under p_gained - p_lost = difference: p_lost solves this
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    p_lost = (sqrt(b * b - 8 * n * c) - b) / (4 * n)
    variance = n * (2 * p_lost + difference * (1 - difference))
    return float(scipy.stats.norm.sf((gained - lost - n * difference) / sqrt(variance)))


def equivalence(ours: Sequence[bool], theirs: Sequence[bool], margin: float) -> float:
    """p-value of "the accuracies differ by `margin` or more": the larger of two one-sided ones."""
    return max(not_worse(ours, theirs, margin), not_worse(theirs, ours, margin))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order: the whole table errs with ALPHA."""
    from statsmodels.stats.multitest import multipletests  # pandas, not needed to import this

    if not p_values:
        return []
    return np.asarray(multipletests(p_values, method="holm")[1]).tolist()


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two gradings of the same samples, and what may be said of them."""

    n: int
    gained: int
    """Samples that only we solve."""
    lost: int
    """Samples that only they solve."""
    p: float
    """McNemar: that they do not differ."""
    p_equal: float
    """Two one-sided tests: that they differ by the margin or more."""

    @classmethod
    def of(cls, ours: Sequence[bool], theirs: Sequence[bool], margin: float) -> "Paired":
        gained, lost = _discordant(ours, theirs)
        return cls(
            n=len(ours),
            gained=gained,
            lost=lost,
            p=mcnemar(ours, theirs),
            p_equal=equivalence(ours, theirs, margin),
        )

    @property
    def difference(self) -> float:
        """Our accuracy minus theirs."""
        return (self.gained - self.lost) / self.n if self.n else 0.0


class Compared(Protocol):
    """A difference of two accuracies with its two p-values, as `Paired` has them."""

    @property
    def difference(self) -> float: ...
    @property
    def p(self) -> float: ...
    @property
    def p_equal(self) -> float: ...


def verdicts(table: Sequence[Compared]) -> list[Verdict]:
    """One word per row of a table; both tests are Holm-corrected over its rows.

    A difference that is significant and yet within the margin is still called by its sign.
    """
    differ = holm([row.p for row in table])
    equal = holm([row.p_equal for row in table])

    def word(row: Compared, p: float, p_equal: float) -> Verdict:
        if p < ALPHA:
            return Verdict.BETTER if row.difference > 0 else Verdict.WORSE
        return Verdict.EQUAL if p_equal < ALPHA else Verdict.UNDECIDED

    return [word(*row) for row in zip(table, differ, equal, strict=True)]


def minimum_detectable_effect(n: int, discordant: float, power: float = 0.8) -> float | None:
    """Smallest true difference of two accuracies that McNemar's exact test finds on `n` samples.

    discordant: share of the samples on which the two disagree, in (0, 1]
    power: with what probability it is found

    None where even a difference of `discordant` (all disagreements on one side) is missed.
    """
    if not 0 < discordant <= 1:
        raise ValueError(f"discordant={discordant} is outside (0, 1]")
    if not ALPHA < power < 1:
        raise ValueError(f"power={power} is outside ({ALPHA}, 1)")
    counts = np.arange(n + 1)
    likely = scipy.stats.binom.pmf(counts, n, discordant)
    # the largest minority that is significant among d disagreements, -1 if none is
    critical = scipy.stats.binom.ppf(ALPHA / 2, counts, 0.5) - 1

    def found(effect: float) -> float:
        minority = (1 - effect / discordant) / 2
        below = scipy.stats.binom.cdf(critical, counts, [[minority], [1 - minority]])
        return float(likely @ below.sum(axis=0))

    if found(discordant) < power:
        return None
    return scipy.optimize.bisect(lambda effect: found(effect) - power, 0, discordant)  # type: ignore[return-value]


def difference_interval(
    ours: Sequence[float], theirs: Sequence[float], seed: int = 0
) -> tuple[float, float]:
    """95 % paired bootstrap interval of the difference of means, ours minus theirs."""
    return _resampled(lambda a, b, axis: a.mean(axis) - b.mean(axis), ours, theirs, seed)


def ratio_interval(
    ours: Sequence[float], theirs: Sequence[float], seed: int = 0
) -> tuple[float, float]:
    """95 % paired bootstrap interval of the ratio of totals, e.g. a speed-up in forwards."""
    return _resampled(lambda a, b, axis: a.sum(axis) / b.sum(axis), ours, theirs, seed)


def _resampled(
    statistic: Callable[..., Any], ours: Sequence[float], theirs: Sequence[float], seed: int
) -> tuple[float, float]:
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} samples are no pairs")
    if len(ours) < 2:
        raise ValueError(f"{len(ours)} samples have no spread: an interval needs at least 2")
    found = scipy.stats.bootstrap(
        (np.asarray(ours, float), np.asarray(theirs, float)),
        statistic,
        paired=True,
        vectorized=True,
        batch=1000,  # resamples held at once
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _discordant(ours: Sequence[bool], theirs: Sequence[bool]) -> tuple[int, int]:
    pairs = list(zip(ours, theirs, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)

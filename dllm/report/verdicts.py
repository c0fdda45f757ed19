"""What the paired samples of two rows, or of a row and the control curve, allow a page to say.

The control of a row at its own cost is a mixture of the two neighbouring points of the curve:
decoding a share w of the samples with the dearer one and the rest with the cheaper one makes, on
average, exactly the row's forwards, and its expected grades are the mixture of theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from dllm.metrics.statistics import (
    Paired,
    Verdict,
    difference_interval,
    minimum_detectable_effect,
    verdicts,
)
from dllm.report.cells import Cell


FLOOR, CEILING = 0.1, 0.97
"""Accuracies of the reference beyond which a loss, or a gain, can't show."""
_DEARER = 1.02
"""A row may cost this much more than the curve's last point and still be compared with it."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of a row minus that of what it stands beside, on the same samples."""

    difference: float
    low: float
    high: float
    """95 % paired bootstrap interval."""
    forwards: float
    """Ours over theirs."""
    p: float
    """That there is no difference: exact McNemar, or a sign-flip permutation test where the other
    side is a mixture."""
    p_equal: float
    """That the accuracies differ by the margin or more; 1 beside a mixture, which has no test of
    it."""
    detectable: float | None
    """Smallest true difference that these samples would show with power 0.8 (before Holm)."""

    @classmethod
    def between(cls, ours: Cell, theirs: Cell, margin: float) -> "Difference":
        paired = Paired.of(ours.grades, theirs.grades, margin)
        low, high = difference_interval(ours.grades, theirs.grades)
        ratio = ours.nfe / theirs.nfe
        detectable = _detectable(np.subtract(ours.grades, theirs.grades, dtype=float))
        return cls(paired.difference, low, high, ratio, paired.p, paired.p_equal, detectable)

    @classmethod
    def at_equal_cost(cls, ours: Cell, curve: Sequence[Cell], margin: float) -> "Difference | None":
        """None where the curve has no mixture of this cost."""
        ordered = sorted(curve, key=lambda cell: cell.nfe)
        if not ordered[0].nfe <= ours.nfe <= _DEARER * ordered[-1].nfe:
            return None
        above = next((i for i, c in enumerate(ordered) if c.nfe >= ours.nfe), len(ordered) - 1)
        cheap, dear = ordered[max(above - 1, 0)], ordered[above]
        span = dear.nfe - cheap.nfe
        share = min((ours.nfe - cheap.nfe) / span, 1.0) if span > 0 else 1.0
        if share in (0.0, 1.0):
            return cls.between(ours, dear if share else cheap, margin)
        mixed = (1 - share) * np.array(cheap.grades, float) + share * np.array(dear.grades, float)
        gains = np.array(ours.grades, float) - mixed
        low, high = difference_interval(ours.grades, mixed.tolist())
        p = _sign_flip(gains)
        return cls(float(gains.mean()), low, high, 1.0, p, 1.0, _detectable(gains))

    def __str__(self) -> str:
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def _sign_flip(gains: np.ndarray) -> float:
    moved = gains[np.abs(gains) > 1e-12]
    if moved.size < 2:  # either sign is as likely
        return 1.0
    found = scipy.stats.permutation_test(
        (moved, np.zeros_like(moved)),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        batch=1000,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _detectable(gains: np.ndarray) -> float | None:
    """With no disagreement seen, that of the rule of three: 3 / n of the samples."""
    n = len(gains)
    share = float((np.abs(gains) > 1e-12).mean())
    return minimum_detectable_effect(n, min(1.0, max(share, 3 / n)))


def spelled(difference: Difference, word: Verdict | None) -> str:
    """The word with what it leaves open; None: there was nothing to lose."""
    if word is None:
        return "not tested (floor)"
    if word is not Verdict.UNDECIDED:
        return str(word)
    if difference.detectable is None:
        return f"{word} (too few samples)"
    return f"{word} (shows from {difference.detectable:.2f})"


def said(differences: Mapping[tuple[str, ...], Difference]) -> dict[tuple[str, ...], Verdict]:
    """One word for each; Holm-corrected over all of them."""
    return dict(zip(differences, verdicts(list(differences.values())), strict=True))

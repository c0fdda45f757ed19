"""In which order positions were decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy


@dataclass(frozen=True)
class DecodingOrder:
    """Agreement of commit steps with positions: 1 = left to right, -1 = right to left."""

    kendall: float | None
    """Tau-b, which allows for positions committed together; None where it is not defined: fewer
    than two positions or all in one step."""
    spearman: float | None


def decoding_order(steps: Sequence[int], effective: int | None = None) -> DecodingOrder:
    """The order of one answer.

    steps: the step that committed each position of the generation region, from the left; the last
        one where a position was committed more than once, negative where it never was
    effective: only the first so many positions, which leaves the padding out
    """
    kept = [(at, step) for at, step in enumerate(steps[:effective]) if step >= 0]
    if len({step for _, step in kept}) < 2:
        return DecodingOrder(None, None)
    positions, committed = zip(*kept, strict=True)
    tau, rho = (
        np.asarray(of(positions, committed))[0]
        for of in (scipy.stats.kendalltau, scipy.stats.spearmanr)
    )
    return DecodingOrder(float(tau), float(rho))

"""Certainty density (d2Cache, arXiv 2509.23094): how close a position is to what is decided."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from dllm.step.canvas import Canvas


def certainty_density(canvas: Canvas, sigma: float) -> Float[np.ndarray, "batch canvas"]:
    """The Gaussian-smoothed indicator of decided positions in the generation regions, 0 elsewhere.

    Everything left of the answer counts as decided, everything right of it once its last position
    is; either side reaches as far as the answer is long.
    """
    out = np.zeros(canvas.tokens.shape)
    for row in range(canvas.batch):
        answer = canvas.generated(row)
        size = answer.size
        known = np.ones(3 * size)
        known[size : 2 * size] = answer != canvas.mask_id
        known[2 * size :] = known[2 * size - 1]
        start = canvas.prompt_length[row]
        out[row, start : start + size] = _weights(size, sigma) @ known
    return out


@lru_cache(maxsize=32)
def _weights(size: int, sigma: float) -> Float[np.ndarray, "size extended"]:
    """Weight of each position of the extended region (as long again on both sides) for each of the
    answer's."""

    def weight(distance: np.ndarray) -> np.ndarray:
        return np.exp(-(distance**2) / (2 * sigma**2))

    distance = np.arange(size)[:, None] - np.arange(-size, 2 * size)
    return weight(distance) / weight(np.arange(-3 * size, 3 * size)).sum()

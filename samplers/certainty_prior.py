"""Certainty prior (d2Cache, arXiv 2509.23094): confidence times closeness to what is decided.

score_i = c_i * D_i, D the Gaussian-smoothed indicator of decided positions: everything left of the
answer counts as decided, everything right of it once its last position is. The rule is a threshold
on the score (at least the best one), or the best one alone. It replaces blocks: order follows the
decided text without a hard border.

D rescales what a threshold sees: scores are no probabilities. Setting of d2Cache: sigma 10, one
block [O]. Section 7.6.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm import scores
from dllm.canvas import Canvas
from dllm.errors import ConfigError
from dllm.prediction import View
from dllm.sampler import Sampler
from dllm.schedule import Value, current
from dllm.state import SamplerState
from samplers.checks import in_unit_interval


@dataclass(frozen=True, kw_only=True)
class CertaintyPrior(Sampler):
    sigma: float
    """Reach of a decided position (> 0)."""
    threshold: Value | None
    """Score from which a position is committed, in [0, 1]; null = the best one only."""

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"sampler.sigma={self.sigma} must be > 0")
        if self.threshold is not None:
            in_unit_interval("threshold", self.threshold)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        c = super().score(view, tokens)
        density = torch.as_tensor(self.density(view.canvas), device=view.device, dtype=c.dtype)
        return c * density.gather(1, view.positions.clamp(min=0))

    def density(self, canvas: Canvas) -> Float[np.ndarray, "batch canvas"]:
        """D of every position of the generation regions, 0 elsewhere."""
        out = np.zeros(canvas.tokens.shape)
        for row in range(canvas.batch):
            answer = canvas.generated(row)
            size = answer.size
            known = np.ones(3 * size)
            known[size : 2 * size] = answer != canvas.mask_id
            known[2 * size :] = known[2 * size - 1]
            start = canvas.prompt_length[row]
            out[row, start : start + size] = _weights(size, self.sigma) @ known
        return out

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        if self.threshold is None:
            return scores.best(score, view.candidates)
        return scores.at_least(score, view.candidates, current(self.threshold, view, score))


@lru_cache(maxsize=32)
def _weights(size: int, sigma: float) -> Float[np.ndarray, "size extended"]:
    """Weight of each position of the extended region (as long again on both sides) for each of the
    answer's."""

    def weight(distance: np.ndarray) -> np.ndarray:
        return np.exp(-(distance**2) / (2 * sigma**2))

    distance = np.arange(size)[:, None] - np.arange(-size, 2 * size)
    return weight(distance) / weight(np.arange(-3 * size, 3 * size)).sum()

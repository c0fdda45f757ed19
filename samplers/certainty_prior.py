"""Certainty prior (d2Cache, arXiv 2509.23094): confidence times closeness to what is decided.

score_i = c_i * D_i, D the Gaussian-smoothed indicator of decided positions: everything left of the
answer counts as decided, everything right of it once its last position is. The rule is a threshold
on the score (at least the `least` best ones), or those alone. It replaces blocks: order follows the
decided text without a hard border.

D rescales what a threshold sees: scores are no probabilities. Setting of d2Cache: sigma 10, one
block [code].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.density import certainty_density
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.schedule import Value, current
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval, not_below


@dataclass(frozen=True, kw_only=True)
class CertaintyPrior(Sampler):
    sigma: float
    """Reach of a decided position (> 0)."""
    threshold: Value | None
    """Score from which a position is committed, in [0, 1]; null = the best ones only."""
    least: int
    """Positions that are committed anyway, the best ones (>= 1)."""

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"sampler.sigma={self.sigma} must be > 0")
        if self.threshold is not None:
            in_unit_interval("threshold", self.threshold)
        not_below("least", self.least, 1)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        c = super().score(view, tokens)
        density = certainty_density(view.canvas, self.sigma)
        density = torch.as_tensor(density, device=view.device, dtype=c.dtype)
        return c * density.gather(1, view.positions.clamp(min=0))

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        least = torch.full((len(score),), self.least, device=score.device)
        best = scores.top_k(score, view.candidates, least)
        if self.threshold is None:
            return best
        return best | (view.candidates & (score >= current(self.threshold, view, score)))

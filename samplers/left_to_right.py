"""Left to right: the leftmost masked position, and the sure ones that follow it without a gap.

Rule: the leftmost candidate is always committed; with a threshold, so is every further candidate
as long as it and all masked positions before it have confidence >= threshold. threshold null is
autoregressive order, one token per step (FreeDave's alg_temp = -1, arXiv 2510.00294 official
code).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm.step import scores
from dllm.step.decision import Decision
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval


@dataclass(frozen=True, kw_only=True)
class LeftToRight(Sampler):
    threshold: float | None
    """Confidence of the positions that follow the leftmost one, in [0, 1]; null = none follow."""

    def __post_init__(self) -> None:
        if self.threshold is not None:
            in_unit_interval("threshold", self.threshold)

    def commits_ahead(self) -> bool:
        return self.threshold is not None

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        leftmost = scores.best(-view.positions.double(), view.candidates)
        if self.threshold is None:
            return leftmost
        gap = torch.zeros_like(view.candidates)
        gap[:, 1:] = view.positions.diff(dim=1) != 1
        refused = view.candidates & ((score < self.threshold) | gap)
        return leftmost | (view.candidates & (refused.cumsum(dim=-1) == 0))

    def select(self, view: View, state: SamplerState) -> Decision:
        view = self.transform(view, state)
        tokens = self.proposer.propose(view)
        commit = self.choose(self.score(view, tokens), view, state)
        # What comes next is ranked by position, too.
        return Decision(commit, tokens, score=-view.positions.to(torch.float64))

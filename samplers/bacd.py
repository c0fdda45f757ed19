"""BACD (TDAR, arXiv 2602.09555): a threshold bounded and adapted by the block's own history.

Rule: the threshold is the highest confidence of the candidates at a block's first step and the mean
confidence H of what the block has committed so far at the later ones, always within [lower, upper];
all candidates that reach it are committed, the most confident one if none does:
    tau = clamp(mean(H), lower, upper), H empty: clamp(max c, lower, upper)
Commits of the fallback enter H too. H belongs to a sequence and its block; the official engine keys
it by batch slot, so that sequences inherit each other's: its batched results can't be matched.

Authors' settings: 0.6 / 0.9 on TDAR-8B-Thinking and TraDo-8B-Thinking, block 16, temperature 1;
confidence = probability of the *sampled* token in bf16, the mean rounded to bf16. On full-attention
models within semi-autoregressive blocks [inferred].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import HostDecision
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import in_unit_interval


@dataclass(frozen=True, kw_only=True)
class BACD(Sampler):
    confidence_lower: float
    """Smallest threshold, in [0, 1]."""
    confidence_upper: float
    """Largest threshold, in [confidence_lower, 1]."""

    def __post_init__(self) -> None:
        in_unit_interval("confidence_lower", self.confidence_lower)
        in_unit_interval("confidence_upper", self.confidence_upper)
        if self.confidence_lower > self.confidence_upper:
            raise ConfigError(
                f"sampler.confidence_lower={self.confidence_lower} exceeds "
                f"sampler.confidence_upper={self.confidence_upper}"
            )

    def fields(self) -> tuple[StateField, ...]:
        return (
            *super().fields(),
            StateField("history_sum", dtype=torch.float64, reset="block"),
            StateField("history_count", dtype=torch.int64, reset="block"),
        )

    def tau(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Float[Tensor, "batch"]:
        count = state["history_count"]
        mean = (state["history_sum"] / count.clamp(min=1)).to(score.dtype)
        most = score.masked_fill(~view.candidates, 0).amax(dim=1)
        tau = mean.where(count > 0, most)
        # The bounds are rounded like the confidences they are compared with.
        return tau.clamp(self.confidence_lower, self.confidence_upper)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        if score.shape[1] == 0:
            return view.candidates
        return scores.at_least(score, view.candidates, self.tau(score, view, state)[:, None])

    def committed(self, canvas: Canvas, decision: HostDecision, state: SamplerState) -> None:
        added = state["history_sum"].new_tensor([row.commit_scores.sum() for row in decision.rows])
        count = state["history_count"].new_tensor([row.commit_scores.size for row in decision.rows])
        state["history_sum"] = state["history_sum"] + added
        state["history_count"] = state["history_count"] + count

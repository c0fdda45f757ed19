"""LocalLeap (arXiv 2510.07081): sure positions relax the threshold of their neighbourhood.

Rule: anchors are the block's masked positions with confidence >= threshold; within `radius`
positions of an anchor the acceptance threshold is relaxed_threshold instead of threshold (both
inclusive). The most confident position is always committed, so that without anchors the rule takes
exactly one token. Anchors are found anew at every step and relaxation does not spread within a
step. Confidence: float64 softmax of the plain logits.

Authors' setting for LLaDA-8B-Instruct: 0.9 / 0.75 / radius 4, block 32, gen_length 256 (HumanEval,
MBPP, MATH) or 512 (GSM8K, IFEval) [second hand]; Dream: rule after the logits shift [inferred].
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm.metrics.bits import Budget, FloorBudget
from dllm.step import scores
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.schedule import Value, current, extremes
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval, not_below


@dataclass(frozen=True, kw_only=True)
class LocalLeap(Sampler):
    threshold: Value
    """Confidence of an anchor, in [0, 1]."""
    relaxed_threshold: Value
    """Confidence that suffices near an anchor, in [0, 1], meant to be below `threshold`."""
    radius: int
    """Distance in canvas positions up to which an anchor reaches (>= 0)."""

    def __post_init__(self) -> None:
        in_unit_interval("threshold", self.threshold)
        in_unit_interval("relaxed_threshold", self.relaxed_threshold)
        not_below("radius", self.radius, 0)
        if extremes(self.relaxed_threshold)[1] > extremes(self.threshold)[0]:
            warnings.warn(
                f"sampler.relaxed_threshold={self.relaxed_threshold} exceeds "
                f"sampler.threshold={self.threshold}: anchors make their neighbours stricter",
                stacklevel=2,
            )

    def budget(self) -> Budget | None:
        floor = min(extremes(value)[0] for value in (self.threshold, self.relaxed_threshold))
        return None if self.logits_transform else FloorBudget(floor)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        return scores.with_best(self.sure(score, view, state), score, view.candidates)

    def sure(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        strict = score >= current(self.threshold, view, score)
        relaxed = score >= current(self.relaxed_threshold, view, score)
        near = self.near(view.candidates & strict, view)
        return view.candidates & torch.where(near, relaxed, strict)

    def anchors(self, score: Float[Tensor, "batch rows"], view: View) -> Bool[Tensor, "batch rows"]:
        return view.candidates & (score >= current(self.threshold, view, score))

    def marks(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Mapping[str, Bool[Tensor, "batch rows"]]:
        return {"anchors": self.anchors(score, view)}

    def near(self, anchors: Bool[Tensor, "batch rows"], view: View) -> Bool[Tensor, "batch rows"]:
        """Rows within `radius` canvas positions of an anchor."""
        distance = (view.positions[:, :, None] - view.positions[:, None]).abs()
        return ((distance <= self.radius) & anchors[:, None]).any(dim=-1)

"""Fast-dLLM threshold (arXiv 2505.22618): commit every position that is sure enough.

Rule: the most confident masked position of the block is always committed; every other one iff its
confidence >= threshold (inclusive; float64 softmax of the plain logits). Official setting:
threshold 0.9, block 32 on LLaDA and Dream, gen_length 256 or 512.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from dllm.metrics.bits import Budget, FloorBudget
from dllm.step import scores
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.schedule import Value, current, extremes
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval


@dataclass(frozen=True, kw_only=True)
class Threshold(Sampler):
    threshold: Value
    """Confidence from which a position is committed, in [0, 1]."""

    def __post_init__(self) -> None:
        in_unit_interval("threshold", self.threshold)

    def budget(self) -> Budget | None:
        return None if self.logits_transform else FloorBudget(extremes(self.threshold)[0])

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        return scores.at_least(score, view.candidates, current(self.threshold, view, score))

    def sure(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        return view.candidates & (score >= current(self.threshold, view, score))

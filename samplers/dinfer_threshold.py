"""dInfer's threshold (arXiv 2510.08666): Fast-dLLM's rule with near-ties of the maximum included.

Rule: theta = min(max confidence - 1e-5, threshold); every candidate with confidence >= theta is
committed, so that without a sure position all within 1e-5 of the best one go at once. Confidence:
float32 softmax (float64 optional in the original). The original leaves out a position that proposes
the mask token; here its next token is proposed, with what the others' softmax gives it.

Settings in dInfer's evaluation: 0.8 or 0.9, gen_length 1024, block 64, `eos=fill_after_block`
(`early_stop`; it stops after the block with the end token in either case). The threshold of its
iteration smoothing is `+schedule@sampler.threshold=linear`; what that mode mixes into the inputs of
undecided positions is left out.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm.step.prediction import View
from dllm.step.schedule import Value, current
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval
from samplers.parts.unrolled import Unrolled


NEAR_TIE = 1e-5


@dataclass(frozen=True, kw_only=True)
class DInferThreshold(Unrolled):
    threshold: Value
    """Confidence from which a position is committed, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_unit_interval("threshold", self.threshold)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        if score.shape[1] == 0:
            return view.candidates
        best = score.masked_fill(~view.candidates, -torch.inf).amax(dim=-1, keepdim=True)
        nearly = view.candidates & (score >= best - NEAR_TIE)
        return nearly | self.sure(score, view, state)

    def sure(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        return view.candidates & (score >= current(self.threshold, view, score))

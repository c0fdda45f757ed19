"""dInfer's hierarchical decoding (arXiv 2510.08666): one token per run of masks.

Rule: each maximal run of consecutive masked positions of the block commits its most confident one
if its confidence > low_threshold; so does every position with confidence > threshold, and the best
of the block always. Both comparisons are strict; positions that tie for a run's maximum all go.
Confidence in the logits' dtype, as the exponential of a log-softmax: in half precision it is
rounded twice and differs from a softmax. The original decodes one sequence at a time; row-wise
here.

Settings: class default low 0.4, harness 0.3; recommended 0.92 / 0.62, also 0.8 / 0.5, 0.85 / 0.75,
0.9 / 0.7; block 64, gen_length 1024, dual cache. No accuracy is published per decoder.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.step import scores
from dllm.step.prediction import View
from dllm.step.schedule import Value, current
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval
from samplers.parts.unrolled import Unrolled


@dataclass(frozen=True, kw_only=True)
class DInferHierarchy(Unrolled):
    threshold: Value | None
    """Confidence above which a position is committed, in [0, 1]; null = no such rule."""
    low_threshold: Value | None
    """Confidence above which a run's best position is committed, in [0, 1]; null = always."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("threshold", "low_threshold"):
            if getattr(self, option) is not None:
                in_unit_interval(option, getattr(self, option))

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        logs = scores.cast(view.logits, self.conf_dtype).log_softmax(dim=-1)
        return logs.gather(-1, tokens[..., None]).squeeze(-1).exp()

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        return self.pick(score, view.candidates, view)

    def pick(
        self,
        score: Float[Tensor, "batch rows"],
        candidates: Bool[Tensor, "batch rows"],
        view: View,
    ) -> Bool[Tensor, "batch rows"]:
        """The rule over any set of candidates."""
        if score.shape[1] == 0:
            return candidates
        leading = score == segment_maximum(score, candidates, view.positions)
        if self.low_threshold is not None:
            leading = leading & (score > current(self.low_threshold, view, score))
        if self.threshold is not None:
            leading = leading | (score > current(self.threshold, view, score))
        return scores.with_best(leading, score, candidates)


def segments(
    candidates: Bool[Tensor, "batch rows"], positions: Int[Tensor, "batch rows"]
) -> Int[Tensor, "batch rows"]:
    """Number of the maximal run of consecutive candidate positions that each candidate is in."""
    joined = candidates[:, 1:] & candidates[:, :-1] & (positions.diff(dim=1) == 1)
    first = candidates.clone()
    first[:, 1:] &= ~joined
    return first.cumsum(dim=1)


def segment_maximum(
    score: Float[Tensor, "batch rows"],
    candidates: Bool[Tensor, "batch rows"],
    positions: Int[Tensor, "batch rows"],
) -> Float[Tensor, "batch rows"]:
    """The best score within each candidate's run."""
    runs = segments(candidates, positions)
    held = score.masked_fill(~candidates, -torch.inf)
    best = score.new_full((len(score), score.shape[1] + 1), -torch.inf)
    return best.scatter_reduce(1, runs, held, "amax").gather(1, runs)

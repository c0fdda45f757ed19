"""Learn2PD (arXiv 2509.25188): a small trained network says which proposals are already final.

Rule: the filter maps the confidences of all positions of the block, decoded ones included, to
logits; masked positions with sigmoid > accept_threshold (strict) are committed, united
with the step's quota of most confident ones (one per step at steps = gen_length). Trained to
imitate `oracle`.

To first order the published filter at 0.96 is a plain threshold of about 0.80:
results are to be read beside `sampler=threshold sampler.threshold=0.8`. Authors' settings: 0.96
on LLaDA-8B-Instruct (GSM8K, gen_length 256), 0.90 in the Dream script, block 32, steps =
gen_length; confidence in the logits' dtype without cache, in float64 with one. Dream's
feature (negative entropy, 0 where decoded) inside this rule is [inferred, no public code found].
Differs: the quota never spills over into the next block, as it can in the official code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.filter import (
    FilterNetwork,
    effective_threshold,
    find_filter,
    load_filter,
    model_signature,
)
from dllm.models.spec import ModelSpec
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Need, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval
from samplers.parts.quota import step_quota, steps_per_block


def negative_entropy(
    logits: Float[Tensor, "batch rows vocab"], dtype: scores.ConfDtype
) -> Float[Tensor, "batch rows"]:
    """Sum of p ln(p + 1e-10), as Dream's code has it."""
    p = scores.cast(logits, dtype).softmax(dim=-1)
    return (p * (p + 1e-10).log()).sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Learn2PD(Sampler):
    filter: str
    """Filter file (safetensors) or the name of an embedded model that ships one."""
    accept_threshold: float
    """Probability of being final above which a position is committed, in [0, 1]."""
    steps: int | None
    """Steps over the whole answer that set the quota; null = gen_length (one position per step)."""
    narrow_blocks: Literal["refuse", "pad"]
    """Blocks shorter than the filter's: refused, or padded with zeros as in the official code."""
    network: FilterNetwork = field(init=False, compare=False, repr=False)

    needs: ClassVar[frozenset[Need]] = frozenset({"block_logits"})

    def __post_init__(self) -> None:
        in_unit_interval("accept_threshold", self.accept_threshold)
        object.__setattr__(self, "network", load_filter(find_filter(self.filter)))

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        steps_per_block(self.region, self.steps, gen_length)
        block, width = gen_length // self.region.blocks(gen_length), self.network.facts.block_length
        if block > width or (block < width and self.narrow_blocks == "refuse"):
            raise ConfigError(
                f"sampler.filter={self.filter} was trained for block_length={width}, the region "
                f"has block_length={block}"
                + ("" if block > width else " (sampler.narrow_blocks=pad allows it)")
            )

    def control(self) -> tuple[str, Mapping[str, float]] | None:
        """The plain threshold that the filter amounts to at this accept_threshold; a filter of
        entropies amounts to none."""
        if self.network.facts.feature != "confidence":
            return None
        matched = effective_threshold(self.network, self.accept_threshold)
        return "threshold", {"threshold": min(matched, 1.0)}

    def check_model(self, spec: ModelSpec) -> None:
        trained = self.network.facts.model
        if trained is not None and trained != model_signature(spec):
            raise ConfigError(
                f"sampler.filter={self.filter} was trained for {trained}, the model is "
                f"{model_signature(spec)}"
            )

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        return Request(pad_positions(canvas.in_block()))

    def accepted(
        self, score: Float[Tensor, "batch rows"], view: View
    ) -> Bool[Tensor, "batch rows"]:
        """A: candidates that the filter holds for final."""
        width = self.network.facts.block_length
        index = view.positions - view.column(view.canvas.block_start)
        inside = (index >= 0) & (view.positions < view.column(view.canvas.block_end))
        # Rows outside the block write to an extra last column.
        index = index.where(inside, width)
        c = torch.zeros(len(index), width + 1, device=view.device)
        c = c.scatter(1, index, self.features(score, view).float())[:, :width]
        final = self.network.to(view.device)(c).sigmoid() > self.accept_threshold
        final = torch.cat((final, final.new_zeros(len(final), 1)), dim=1)
        return final.gather(1, index) & view.candidates

    def features(
        self, score: Float[Tensor, "batch rows"], view: View
    ) -> Float[Tensor, "batch rows"]:
        if self.network.facts.feature == "confidence":
            return score
        return score.masked_fill(~view.candidates, 0)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        if self.network.facts.feature == "confidence":
            return super().score(view, tokens)
        return negative_entropy(view.logits, self.conf_dtype)

    def select(self, view: View, state: SamplerState) -> Decision:
        view = self.transform(view, state)
        tokens = self.proposer.propose(view)
        score = self.score(view, tokens)
        accepted = self.accepted(score, view)
        quota = torch.as_tensor(
            step_quota(view.canvas, self.region, self.steps), device=score.device
        )
        commit = accepted | scores.top_k(score, view.candidates, quota)
        return Decision(commit, tokens, score, marks={"accepted": accepted})

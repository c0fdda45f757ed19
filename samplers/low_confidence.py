"""LLaDA's own decoding (arXiv 2502.09992): a fixed number of tokens per step.

Rule: a block of n masks and K = steps / blocks steps commits n // K positions per step, the first n
mod K steps one more, those with the highest confidence (`remasking: low_confidence`) or random ones
(`random`); ParallelBench (arXiv 2510.04767) also ranks by p1 - p2 (`topk_margin`) and by negative
entropy (`entropy`) on the same schedule. All K forwards of a block are made, as in the official
generate.py, even if a quota is 0. steps = gen_length is the one-token-per-step baseline that every
other method is compared to.

Options of the official evaluation: classifier-free guidance (the prompt masked in a second canvas,
l = l_u + (cfg_scale + 1)(l_c - l_u)); `logits_eos_inf` forbids EOS, the end token that fills a
canvas, and no other one; `confidence_eos_eot_inf` gives EOS and EOT proposals confidence 0 and
renormalises the others (with a temperature the official chained assignment only touches EOT;
`official_quirk` keeps that). Settings per benchmark: results/published/llada.yaml.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.models.spec import ModelSpec
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.state import SamplerState
from samplers.parts.branches import beside
from samplers.parts.checks import in_vocabulary, not_below
from samplers.parts.proposers import Greedy
from samplers.parts.quota import StaticQuota


@dataclass(frozen=True, kw_only=True)
class LowConfidence(StaticQuota):
    remasking: Literal["low_confidence", "random", "topk_margin", "entropy"]
    """What ranks the positions."""
    cfg_scale: float
    """Guidance strength; 0 = one canvas per step."""
    logits_eos_inf: bool
    confidence_eos_eot_inf: bool
    """Of `remasking: low_confidence`."""
    eot_ids: list[int] | None
    """End-of-turn tokens that `confidence_eos_eot_inf` suppresses besides EOS; None = the model's
    other end tokens."""
    official_quirk: bool

    def __post_init__(self) -> None:
        not_below("cfg_scale", self.cfg_scale, 0)
        if self.cfg_scale:
            object.__setattr__(self, "needs", frozenset({"guidance"}))

    def check_model(self, spec: ModelSpec) -> None:
        super().check_model(spec)
        in_vocabulary("eot_ids", self.eot_ids, spec)

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        positions = pad_positions(eligible)
        if not self.cfg_scale:
            return Request(positions)
        prompt = np.arange(canvas.capacity) < canvas.prompt_length[:, None]
        free = np.where(prompt, canvas.mask_id, canvas.tokens)
        return Request(positions, beside(canvas, free[:, None]))

    def transform(self, view: View, state: SamplerState) -> View:
        logits = view.logits
        if self.cfg_scale:
            assert view.branch_logits is not None
            free = view.branch_logits[:, 1]
            logits = free + (self.cfg_scale + 1) * (logits - free)
        if self.logits_eos_inf:
            logits = _without(logits, view.canvas.eos_ids[:1])
        changed = view if logits is view.logits else view.with_logits(logits)
        return super().transform(changed, state)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        if self.remasking == "random":
            return view.uniform()
        if self.remasking == "topk_margin":
            return scores.margin(view.logits, self.conf_dtype)
        if self.remasking == "entropy":
            return -scores.entropy(view.logits, self.conf_dtype)
        if not self.confidence_eos_eot_inf:
            return super().score(view, tokens)
        eos, *others = view.canvas.eos_ids
        hidden = others if self.eot_ids is None else self.eot_ids
        if isinstance(self.proposer, Greedy) or not self.official_quirk:
            hidden = [eos, *hidden]
        return scores.confidence(_without(view.logits, hidden), tokens, self.conf_dtype)


def _without(logits: Tensor, tokens: tuple[int, ...] | list[int]) -> Tensor:
    return logits.index_fill(
        -1, torch.tensor(tokens, dtype=torch.long, device=logits.device), -torch.inf
    )

"""SDAR's and LLaDA2's block rules: a threshold when enough positions pass it, else a quota.

`dynamic` (SDAR's default, LLaDA2.x): all candidates with confidence > threshold (strict) if at
least the step's quota pass, else the quota's best. `static`: the quota's best. `sequential`: the
leftmost ones. `entropy_bounded`: ascending entropy, the longest prefix with a cumulative sum <
entropy_bound, at least one (as intended; the shipped code is broken). The quota is block_length
over denoising_steps; where fewer masks are left, it takes what there is (SDAR's code overwrites
decided positions).

Settings: SDAR (`sdar`) block 4, 4 steps, threshold 0.85, temperature 1 from the command line
[code]; LLaDA2.0 (`llada2`) block 32, one per step, threshold 0.95 [re-implementation]: 70.15 points
at 2.55 tokens per forward, 0.85: 3.31 [paper]. Meant for block-causal models with their own block
size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.schedule import Value, current, extremes
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval, not_below


@dataclass(frozen=True, kw_only=True)
class DynamicQuota(Sampler):
    mode: Literal["dynamic", "static", "sequential", "entropy_bounded"]
    denoising_steps: int | None
    """Steps that the quota spreads a block over (>= 1); null = `per_step` positions in each."""
    per_step: int
    """Positions due in every step where no steps are given (>= 1)."""
    quota_rest: Literal["first_steps", "dropped"]
    """What a block leaves over steps: one more position in each of the first ones (SDAR), or a last
    step or two more (TDAR's engine)."""
    threshold: Value
    """Confidence above which positions count in `dynamic`, in [0, 1]."""
    entropy_bound: Value
    """Budget of `entropy_bounded` in nats (>= 0)."""

    def __post_init__(self) -> None:
        in_unit_interval("threshold", self.threshold)
        not_below("entropy_bound", extremes(self.entropy_bound)[0], 0)
        if self.denoising_steps is not None and self.denoising_steps < 1:
            raise ConfigError(f"sampler.denoising_steps={self.denoising_steps} must be >= 1")
        not_below("per_step", self.per_step, 1)
        if self.denoising_steps is not None and self.per_step != 1:
            raise ConfigError(
                f"sampler.per_step={self.per_step} and sampler.denoising_steps="
                f"{self.denoising_steps} are two quotas: leave one of them at its default"
            )

    def quota(self, view: View) -> Int[Tensor, "batch"]:
        """Positions due in this step; at least one, so that the schedule can't run dry."""
        canvas = view.canvas
        if self.denoising_steps is None:
            return torch.full((canvas.batch,), self.per_step, device=view.device)
        length = canvas.block_end - canvas.block_start
        share = length // self.denoising_steps
        if self.quota_rest == "first_steps":
            share = share + (canvas.step_in_block < length % self.denoising_steps)
        return view.column(share.clip(1))[:, 0]

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        if score.shape[1] == 0:
            return view.candidates
        if self.mode == "entropy_bounded":
            return self._within_entropy(score, view)
        quota = self.quota(view)
        rank = -view.positions if self.mode == "sequential" else score
        due = scores.top_k(rank.to(score.dtype), view.candidates, quota)
        if self.mode != "dynamic":
            return due
        sure = view.candidates & (score > current(self.threshold, view, score))
        # Where fewer masks are left than the quota, all of them being sure is enough.
        enough = sure.sum(dim=1) >= quota.minimum(view.candidates.sum(dim=1))
        return torch.where(enough[:, None], sure, due)

    def _within_entropy(
        self, score: Float[Tensor, "batch rows"], view: View
    ) -> Bool[Tensor, "batch rows"]:
        h = scores.entropy(view.logits, self.conf_dtype)
        order = scores.rank_order((-h).masked_fill(~view.candidates, -torch.inf))
        prefix = h.gather(1, order).cumsum(dim=1) < current(self.entropy_bound, view, score)
        prefix[:, 0] = True
        return torch.zeros_like(prefix).scatter_(1, order, prefix) & view.candidates

"""Static quotas: a fixed number of commits per step (confidence_samplers section 0.5).

A block of n masks decoded in K = steps / blocks steps commits n // K positions per step, the first
n mod K steps one more; computed once, from the masks at block entry.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm import scores
from dllm.canvas import Canvas
from dllm.errors import ConfigError
from dllm.prediction import View
from dllm.sampler import Sampler
from dllm.state import SamplerState


def split_quota(
    count: Int[np.ndarray, "batch"], steps: Int[np.ndarray, "batch"], step: Int[np.ndarray, "batch"]
) -> Int[np.ndarray, "batch"]:
    """Share of `count` positions that falls to one of `steps` steps."""
    return count // steps + (step < count % steps)


@dataclass(frozen=True, kw_only=True)
class StaticQuota(Sampler):
    """Commits the quota's best candidates; all K forwards of a block are made, even if a quota is 0.

    Fewer candidates than the quota are all there is to commit: official codes that do not clamp write
    over decided positions (traps D2, K7, SDAR).
    """

    steps: int | None
    """Forwards over the whole answer; null = gen_length (one token per step)."""

    may_commit_nothing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"sampler.steps={self.steps} must be >= 1")

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        self.steps_per_block(gen_length)

    def max_steps(self, gen_length: int) -> int:
        return self.steps or gen_length

    def steps_per_block(self, gen_length: int) -> int:
        blocks = self.region.blocks(gen_length)
        steps = self.steps or gen_length
        if steps % blocks:
            raise ConfigError(f"sampler.steps={steps} is not a multiple of the {blocks} blocks")
        return steps // blocks

    def quota(self, canvas: Canvas) -> Int[np.ndarray, "batch"]:
        """Positions that each sequence commits in this step."""
        steps = np.array([self.steps_per_block(prompt.gen_length) for prompt in canvas.prompts])
        return split_quota(canvas.block_masks, steps, canvas.step_in_block)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        quota = torch.as_tensor(self.quota(view.canvas), device=score.device)
        return scores.top_k(score, view.candidates, quota)

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        steps = self.steps_per_block(canvas.prompts[row].gen_length)
        return bool(canvas.step_in_block[row] >= steps)


@dataclass(frozen=True, kw_only=True)
class StaticQuota(Sampler):
    """Commits the quota's best candidates; all K forwards of a block are made, even if a quota is
    0.

    Fewer candidates than the quota are all there is to commit: official codes that do not clamp
    write over decided positions (traps D2, K7, SDAR).
    """

    steps: int | None
    """Forwards over the whole answer; null = gen_length (one token per step)."""

    may_commit_nothing: ClassVar[bool] = True

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        steps_per_block(self.region, self.steps, gen_length)

    def max_steps(self, gen_length: int) -> int:
        return self.steps or gen_length

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        quota = step_quota(view.canvas, self.region, self.steps)
        return scores.top_k(score, view.candidates, torch.as_tensor(quota, device=score.device))

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        gen_length = canvas.prompts[row].gen_length
        steps = steps_per_block(self.region, self.steps, gen_length)
        return bool(canvas.step_in_block[row] >= steps)

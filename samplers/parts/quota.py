"""Static quota: a block's masks spread evenly over its steps.

`steps: null` is one token per step in any region, also where blocks are found while decoding.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.prediction import View
from dllm.step.sampler import Region, Sampler
from dllm.step.state import SamplerState


def steps_per_block(region: Region, steps: int | None, gen_length: int) -> int:
    """Steps of each block; `steps` over the whole answer, None = gen_length.

    Raises `ConfigError` if the blocks can't share them evenly.
    """
    if steps is not None and steps < 1:
        raise ConfigError(f"sampler.steps={steps} must be >= 1")
    blocks = region.blocks(gen_length)
    total = steps or gen_length
    if total % blocks:
        raise ConfigError(f"sampler.steps={total} is not a multiple of the {blocks} blocks")
    return total // blocks


def block_steps(canvas: Canvas, region: Region, steps: int | None) -> Int[np.ndarray, "batch"]:
    """K of each sequence's block: its share of `steps`, None = one per mask that it was entered
    with."""
    if steps is None:
        return canvas.block_masks
    return np.array([steps_per_block(region, steps, p.gen_length) for p in canvas.prompts])


def step_quota(canvas: Canvas, region: Region, steps: int | None) -> Int[np.ndarray, "batch"]:
    """Positions to commit in this step: n // K of the n masks that the block was entered with, one
    more in the first n mod K of its K steps; at least one where masks are left after these."""
    if steps is None:
        return np.ones(canvas.batch, dtype=np.int64)
    count = block_steps(canvas, region, steps)
    due = canvas.block_masks // count + (canvas.step_in_block < canvas.block_masks % count)
    # A veto or a row that was not computed can leave a step short of its share.
    return np.where(canvas.step_in_block < count, due, np.maximum(due, 1))


@dataclass(frozen=True, kw_only=True)
class StaticQuota(Sampler):
    """Commits the quota's best candidates; all K forwards of a block are made, whatever the quota,
    and more only if masks are left after them.

    Fewer candidates than the quota are all there is to commit: official codes that do not clamp
    write over decided positions (Dream's in a batch, KLASS's, SDAR's).
    """

    steps: int | None
    """Forwards over the whole answer; null = one token per step."""

    may_commit_nothing: ClassVar[bool] = True

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        if self.steps is not None:
            steps_per_block(self.region, self.steps, gen_length)

    def scheduled_steps(self, gen_length: int) -> int:
        return self.steps or gen_length

    def max_steps(self, positions: int) -> int:
        return max(self.steps or 0, positions) + positions

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        if self.steps is None:
            # One position needs no order of all, which takes several times as long to find.
            return scores.best(score, view.candidates)
        quota = step_quota(view.canvas, self.region, self.steps)
        return scores.top_k(score, view.candidates, torch.as_tensor(quota, device=score.device))

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        made = canvas.step_in_block[row] >= block_steps(canvas, self.region, self.steps)[row]
        return bool(made) and super().block_done(canvas, row, state)

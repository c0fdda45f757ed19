"""d3LLM (arXiv 2601.07568): several blocks at once, accepted by entropy; a reconstruction.

A step commits every mask of the blocks in work whose entropy is < threshold (nats, strict); of the
leftmost unfinished block at least the lowest one; in the LLaDA code the lowest of all blocks in
work, too (`everywhere`). The next block comes into work when the last one is decided to a share >=
add_threshold, at most one per step.

From copies of the authors' generation code on LLaDA and Dream [re-implementation]; no trace of it
is recorded. Settings there: block 32, add_threshold 0.1, threshold 0.5, for Dream's table 0.4, stop
at the first end token: eos=fill_at_once here; there, positions behind it may be written once more,
and one more forward is counted. The share at which a block counts as activated (0.95 there) changes
nothing in that code: the leftmost unfinished block always is. Its key/value cache, which waits some
steps before it keeps a finished block, is not built: sampler=d3llm runs with caches that compute
the blocks ahead in every step. Meant for d3LLM's distilled checkpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.schedule import Value, current, extremes
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import in_unit_interval, not_below
from samplers.parts.regions import FixedBlocks
from samplers.parts.regions_ahead import CrossBlock


_IN_WORK = "d3llm_in_work"


@dataclass(frozen=True, kw_only=True)
class D3LLM(Sampler):
    threshold: Value
    """Entropy below which a mask is committed, in nats (>= 0)."""
    add_threshold: float
    """Decided share of the last block in work at which the next one joins, in [0, 1]; 1 = one block
    at a time."""
    everywhere: bool
    """Every step commits the lowest entropy of all blocks in work, too (the LLaDA code)."""

    def __post_init__(self) -> None:
        not_below("threshold", extremes(self.threshold)[0], 0)
        in_unit_interval("add_threshold", self.add_threshold)
        if isinstance(self.region, CrossBlock):
            return
        if not isinstance(self.region, FixedBlocks):
            raise ConfigError(
                f"sampler.region={type(self.region).__name__}: sampler=D3LLM needs blocks of one "
                "length from the end of the prompt (sampler/region=fixed)"
            )
        object.__setattr__(self, "region", CrossBlock(self.region, None))

    def fields(self) -> tuple[StateField, ...]:
        return (*super().fields(), StateField(_IN_WORK, (), torch.int64, fill=1))

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        end = canvas.prompt_length + self._in_work(canvas, state) * self._size(canvas)
        return Request(pad_positions(eligible & (np.arange(canvas.capacity) < end[:, None])))

    def _in_work(self, canvas: Canvas, state: SamplerState) -> Int[np.ndarray, "batch"]:
        """Blocks from the first on that may be decided in this step."""
        count, size = state[_IN_WORK].cpu().numpy(), self._size(canvas)
        last = (canvas.prompt_length + (count - 1) * size)[:, None]
        index = np.arange(canvas.capacity)
        inside = (index >= last) & (index < last + size[:, None])
        decided = 1 - (canvas.masked() & inside).sum(axis=1) / size
        blocks = -(-(canvas.length - canvas.prompt_length) // size)
        return np.minimum(count + (decided >= self.add_threshold), blocks)

    def _size(self, canvas: Canvas) -> Int[np.ndarray, "batch"]:
        assert isinstance(self.region, CrossBlock) and isinstance(self.region.region, FixedBlocks)
        length = self.region.region.block_length
        if length is None:
            return canvas.length - canvas.prompt_length
        return np.full(canvas.batch, length)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        return -scores.entropy(view.logits, self.conf_dtype)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        sure = view.candidates & (-score < current(self.threshold, view, score))
        inside = self._inside(view)
        stuck = ~(sure & inside).any(dim=1, keepdim=True)
        chosen = sure | (scores.best(score, view.candidates & inside) & stuck)
        return scores.with_best(chosen, score, view.candidates) if self.everywhere else chosen

    def marks(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Mapping[str, Bool[Tensor, "batch rows"]]:
        return {"ahead": self.choose(score, view, state) & ~self._inside(view)}

    def select(self, view: View, state: SamplerState) -> Decision:
        in_work = torch.from_numpy(self._in_work(view.canvas, state))
        return replace(super().select(view, state), updates={_IN_WORK: in_work.to(view.device)})

    def _inside(self, view: View) -> Bool[Tensor, "batch rows"]:
        return view.positions < view.column(view.canvas.block_end)

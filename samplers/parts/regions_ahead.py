"""Blocks ahead (FreeDave's eager mode, ETE): the current block and the next ones are eligible
together."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from dllm.step.canvas import Canvas
from dllm.step.plan import Need
from dllm.step.prediction import View
from dllm.step.sampler import Region


@dataclass(frozen=True)
class BlocksAhead:
    """The blocks of `region`, with ceil(draft_steps / block size) attention blocks after the
    current one eligible, too."""

    region: Region
    draft_steps: int

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        ahead = -(-self.draft_steps // canvas.attention_block) * canvas.attention_block
        index = np.arange(canvas.capacity)
        return (
            (canvas.tokens == canvas.mask_id)
            & (index >= canvas.block_start[:, None])
            & (index < np.minimum(canvas.block_end + ahead, canvas.length)[:, None])
        )

    def refine(self, view: View) -> np.ndarray | None:
        return self.region.refine(view)

    def __getattr__(self, name: str):
        return getattr(self.region, name)


@dataclass(frozen=True)
class CrossBlock:
    """The blocks of `region`, with the `ahead` next ones, as long as the current one, eligible,
    too."""

    region: Region
    ahead: int | None
    """None = all."""

    @property
    def needs(self) -> frozenset[Need]:
        beyond: frozenset[Need] = frozenset() if self.ahead == 0 else frozenset({"ahead_logits"})
        return self.region.needs | beyond

    def ends(self, canvas: Canvas) -> Int[np.ndarray, "batch"]:
        """Where the scope of each sequence ends."""
        if self.ahead is None:
            return canvas.length
        size = canvas.block_end - canvas.block_start
        return np.minimum(canvas.block_end + self.ahead * size, canvas.length)

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        index = np.arange(canvas.capacity)
        inside = (index >= canvas.block_start[:, None]) & (index < self.ends(canvas)[:, None])
        return canvas.masked() & inside

    def refine(self, view: View) -> np.ndarray | None:
        return self.region.refine(view)

    def __getattr__(self, name: str):
        return getattr(self.region, name)

"""Blocks ahead (FreeDave's eager mode): the current block and the next ones are eligible
together."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from dllm.step.canvas import Canvas
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

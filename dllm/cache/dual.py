"""Dual cache of Fast-dLLM (arXiv 2505.22618): everything outside the block is computed once per
block.

A block's first step feeds the whole canvas and keeps all keys and values; its other steps feed
the block only, which replaces its own slots. Approximate under full attention: prefix and masked
suffix do not see what the block commits. The tail of an answer that is cut short stays attended
until the next refresh, in the state of the last forward that fed it (as Learn2PD's official code
does).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from dllm.cache.block_refresh import BlockRefresh
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import Need


@dataclass(kw_only=True)
class DualCache(BlockRefresh):
    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        found = super().supplies(spec)
        # The rows of a shifted model end before the block's last position.
        last_row = not spec.logit_shift or self.shifted_rows == "own"
        return found if last_row else found - {"hypotheses"}

    def step_span(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        # Rows before a shifted model's last position predict the whole block. The block of a canvas
        # that grows may reach beyond what there is of it.
        return canvas.block_start, np.minimum(canvas.block_end, canvas.length) - self._lead

    def visible_to(self, canvas: Canvas) -> Int[np.ndarray, "batch"]:
        return np.full(canvas.batch, canvas.capacity)

    def written(self, canvas: Canvas, refresh: np.ndarray) -> Literal["all"]:
        return "all"

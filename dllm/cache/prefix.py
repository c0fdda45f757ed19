"""Prefix cache of Fast-dLLM (arXiv 2505.22618): what lies left of the block is computed once per
block.

A block's first step feeds the whole canvas and keeps the keys and values of [0, s); its other steps
feed [s, end of the canvas). Approximate under full attention: the stored keys do not see what the
block commits.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from dllm.cache.block_refresh import BlockRefresh
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import Need


@dataclass(kw_only=True)
class PrefixCache(BlockRefresh):
    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        ahead: frozenset[Need] = frozenset({"ahead_logits"})
        found = super().supplies(spec)
        return found | ahead if "block_logits" in found else found

    def step_span(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        return canvas.block_start, canvas.length

    def visible_to(self, canvas: Canvas) -> Int[np.ndarray, "batch"]:
        return canvas.block_start

    def written(self, canvas: Canvas, refresh: np.ndarray) -> Bool[np.ndarray, "batch slots"]:
        index = np.arange(canvas.capacity)
        return (index < canvas.block_start[:, None]) & refresh[:, None]

"""Regions: which masked positions are eligible, block after block.

Fixed blocks are LLaDA's semi-autoregressive schedule (arXiv 2502.09992): equal blocks from the end
of the prompt, left to right; `block_length: null` makes the whole generation region one block.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.plan import Need
from dllm.step.prediction import View


def plain_layout(prompt: Prompt, spec: ModelSpec) -> Layout:
    """Prompt plus gen_length masks that never grow, attention as the model was trained."""
    length = len(prompt.tokens) + prompt.gen_length
    return Layout(length, length, length, spec.block_size or 0)


@dataclass(frozen=True, kw_only=True)
class FixedBlocks:
    """Blocks of `block_length` positions counted from the end of the prompt."""

    block_length: int | None
    """Positions per block (>= 1, divides gen_length); null = one block."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        if self.block_length is not None and self.block_length < 1:
            raise ConfigError(f"sampler.region.block_length={self.block_length} must be >= 1")

    def validate(self, gen_length: int) -> None:
        if self.block_length is not None and gen_length % self.block_length:
            raise ConfigError(
                f"sampler.region.block_length={self.block_length} does not divide "
                f"gen_length={gen_length}"
            )

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        return plain_layout(prompt, spec)

    def blocks(self, gen_length: int) -> int:
        return gen_length // (self.block_length or gen_length)

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        start, length = int(canvas.block_end[row]), int(canvas.length[row])
        if start >= length:
            return None
        # An answer that was cut short may end inside a block.
        return start, length if self.block_length is None else min(
            start + self.block_length, length
        )

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        return (canvas.tokens == canvas.mask_id) & canvas.in_block()

    def refine(self, view: View) -> np.ndarray | None:
        return None

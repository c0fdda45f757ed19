"""Regions of WeDLM (arXiv 2512.22737): a window of fixed width behind the first mask, or blocks."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.plan import Need
from dllm.step.prediction import View
from samplers.parts.regions import FixedBlocks, plain_layout


@dataclass(frozen=True, kw_only=True)
class StreamingWindow:
    window: int
    """Positions from the first mask on in which masks are eligible (>= 1)."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"sampler.region.window={self.window} must be >= 1")

    def validate(self, gen_length: int) -> None:
        """Any length fits."""

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        return plain_layout(prompt, spec)

    def blocks(self, gen_length: int) -> int:
        return 1

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        start, length = int(canvas.block_end[row]), int(canvas.length[row])
        return None if start >= length else (start, length)

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        end = first_masks(canvas) + self.window
        return canvas.masked() & (np.arange(canvas.capacity) < end[:, None])

    def refine(self, view: View) -> np.ndarray | None:
        return None


def first_masks(canvas: Canvas) -> Int[np.ndarray, "batch"]:
    """First masked position of each sequence, its length where nothing is masked."""
    masked = canvas.masked()
    return np.where(masked.any(axis=1), masked.argmax(axis=1), canvas.length)


@dataclass(frozen=True, kw_only=True)
class UnevenBlocks(FixedBlocks):
    """Blocks of `block_length` positions, of which the last may be shorter (WeDLM's block
    decoding)."""

    def validate(self, gen_length: int) -> None:
        """Any length fits."""

    def blocks(self, gen_length: int) -> int:
        return -(-gen_length // (self.block_length or gen_length))

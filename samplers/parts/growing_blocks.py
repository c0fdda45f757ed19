"""Growing canvas: blocks of equal length on a sequence whose length the sampler still decides.

The sequence starts with initial_length masks and may grow to gen_length (never beyond the model's
positions: the answer is kept and marked truncated). A block may reach beyond the present end: what
grows there belongs to it.
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
from samplers.parts.regions import plain_layout


def growing_layout(prompt: Prompt, spec: ModelSpec, initial_length: int) -> Layout:
    """`initial_length` masks, room for gen_length of them or as many as the model has positions.

    Raises `ConfigError` for models whose trained blocks a moving end would cut.
    """
    if spec.attention != "full":
        raise ConfigError(
            f"sampler/region=growing: a growing canvas needs full attention; the {spec.family} "
            f"model's is {spec.attention}"
        )
    full = plain_layout(prompt, spec).capacity
    length = len(prompt.tokens) + min(initial_length, prompt.gen_length)
    capacity = max(length, min(full, spec.max_positions))
    return Layout(length, capacity, capacity, 0)


@dataclass(frozen=True, kw_only=True)
class GrowingBlocks:
    block_length: int
    """Positions per block (>= 1)."""
    initial_length: int
    """Masked positions at the start (>= 1)."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        for name in ("block_length", "initial_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sampler.region.{name}={getattr(self, name)} must be >= 1")

    def validate(self, gen_length: int) -> None:
        pass

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        return growing_layout(prompt, spec, self.initial_length)

    def blocks(self, gen_length: int) -> int:
        raise ConfigError("sampler/region=growing: the number of blocks is not known in advance")

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        start = int(canvas.block_end[row])
        return None if start >= canvas.length[row] else (start, start + self.block_length)

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        behind = np.arange(canvas.capacity) - canvas.block_start[:, None]
        return canvas.masked() & (behind >= 0) & (behind < self.block_length)

    def refine(self, view: View) -> np.ndarray | None:
        """A block that was cut with its answer reaches as far as before once the answer has grown
        again."""
        return view.canvas.block_start + self.block_length

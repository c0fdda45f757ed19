"""Aligned blocks: the blocks of a block-causal model, counted from absolute position 0.

The prompt's tail shares the first decoded block, and the canvas is rounded up to whole blocks
(SDAR, TraDo, TDAR, LLaDA2). `block_length` is the block of the
attention too: the same weights can be run with another one, as TCCF does with 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.plan import Need
from dllm.step.prediction import View


@dataclass(frozen=True, kw_only=True)
class AlignedBlocks:
    block_length: int | None
    """Positions per block (>= 1); null = the model's block."""
    untrained: Literal["refuse", "allow"]
    """Of a block-causal model: block lengths other than the one it was trained for, and 1
    (causal)."""
    overhang: Literal["keep", "cut"]
    """What the last block decodes beyond gen_length stays in the answer (SDAR) or not (TDAR)."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        if self.block_length is not None and self.block_length < 1:
            raise ConfigError(f"sampler.region.block_length={self.block_length} must be >= 1")

    def validate(self, gen_length: int) -> None:
        pass

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        block = self.block_length or spec.block_size
        if block is None:
            raise ConfigError(
                f"sampler.region.block_length=null: the {spec.family} model has no block size"
            )
        if spec.block_size is not None and block not in (1, spec.block_size):
            self._refuse(block, spec.block_size)
        asked = len(prompt.tokens) + prompt.gen_length
        length = -(-asked // block) * block
        if asked <= spec.max_positions < length:
            # The last block ends with the model's positions.
            length = spec.max_positions
        kept = length if self.overhang == "keep" else asked
        return Layout(length, length, kept, block if spec.attention == "block_causal" else 0)

    def _refuse(self, block: int, trained: int) -> None:
        if self.untrained == "refuse":
            raise ConfigError(
                f"sampler.region.block_length={block}: the model was trained for blocks of "
                f"{trained}; allowed are 1 (causal) and {trained}, or say model.block_size={block} "
                "if the checkpoint was trained for it, or sampler.region.untrained=allow"
            )

    def blocks(self, gen_length: int) -> int:
        raise ConfigError(
            "sampler/region=aligned: the number of blocks depends on the prompt; use a rule with "
            "steps per block (sampler=sdar)"
        )

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        block = self._block(canvas, row)
        start, length = int(canvas.block_end[row]), int(canvas.length[row])
        if start >= length:
            return None
        return start // block * block, min(start // block * block + block, length)

    def _block(self, canvas: Canvas, row: int) -> int:
        # A model without block-causal attention needs the option, which layout has checked.
        return int(canvas.attention_block[row]) or self.block_length or canvas.capacity

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        return canvas.masked() & canvas.in_block()

    def refine(self, view: View) -> np.ndarray | None:
        return None

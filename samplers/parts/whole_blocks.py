"""Whole blocks: the model's own block length, counted from the end of the prompt.

DiffusionGemma denoises one canvas of fixed length after the other; the answer is rounded up to
whole ones and keeps what they hold beyond gen_length, as transformers' `generate` does.
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


@dataclass(frozen=True, kw_only=True)
class WholeBlocks:
    needs: ClassVar[frozenset[Need]] = frozenset()

    def validate(self, gen_length: int) -> None:
        pass

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        if spec.attention != "causal_prefix" or spec.block_size is None:
            raise ConfigError(
                f"sampler/region=whole: the {spec.family} model has no blocks counted from the end "
                "of the prompt"
            )
        answer = -(-prompt.gen_length // spec.block_size) * spec.block_size
        length = len(prompt.tokens) + answer
        return Layout(length, length, length, spec.block_size)

    def blocks(self, gen_length: int) -> int:
        raise ConfigError("sampler/region=whole: the number of blocks depends on the model")

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        start = int(canvas.block_end[row])
        if start >= canvas.length[row]:
            return None
        return start, start + int(canvas.attention_block[row])

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        return canvas.masked() & canvas.in_block()

    def refine(self, view: View) -> np.ndarray | None:
        return None

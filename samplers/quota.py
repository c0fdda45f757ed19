"""Static quota (confidence_samplers section 0.5): a block's masks spread evenly over its steps."""

import numpy as np
from jaxtyping import Int

from dllm.canvas import Canvas
from dllm.errors import ConfigError
from dllm.sampler import Region


def steps_per_block(region: Region, steps: int | None, gen_length: int) -> int:
    """Steps of each block; `steps` over the whole answer, None = gen_length.

    Raises `ConfigError` if the blocks can't share them evenly.
    """
    if steps is not None and steps < 1:
        raise ConfigError(f"sampler.steps={steps} must be >= 1")
    blocks = region.blocks(gen_length)
    total = steps or gen_length
    if total % blocks:
        raise ConfigError(f"sampler.steps={total} is not a multiple of the {blocks} blocks")
    return total // blocks


def step_quota(canvas: Canvas, region: Region, steps: int | None) -> Int[np.ndarray, "batch"]:
    """Positions to commit in this step: n // K of the block's n masks, one more in the first n mod K
    of its K steps."""
    count = np.array([steps_per_block(region, steps, p.gen_length) for p in canvas.prompts])
    return canvas.block_masks // count + (canvas.step_in_block < canvas.block_masks % count)

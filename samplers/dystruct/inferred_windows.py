"""Windows whose end the sampler infers (Dystruct): a growing canvas, a look-ahead of masks behind
it.

Everything left of the window's end is eligible once it is masked, so that borders can be masked
again and decoded anew. The end is set by `Sampler.refine`, which sees the sampler's memory.
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
from samplers.parts.growing_blocks import growing_layout


@dataclass(frozen=True, kw_only=True)
class InferredWindows:
    smallest_window: int
    """Expected length after an unstable window (>= 1)."""
    largest_window: int
    """Look-ahead, and expected length after a stable window (>= smallest_window)."""
    first_window: int
    """Expected length of the first window (>= 1)."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        if not 1 <= self.smallest_window <= self.largest_window or self.first_window < 1:
            raise ConfigError(
                f"sampler.region.smallest_window={self.smallest_window}, largest_window="
                f"{self.largest_window}, first_window={self.first_window} are not "
                "1 <= smallest <= largest, first >= 1"
            )

    def validate(self, gen_length: int) -> None:
        pass

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        return growing_layout(prompt, spec, self.largest_window)

    def blocks(self, gen_length: int) -> int:
        raise ConfigError("sampler/region=inferred: the number of windows is not known in advance")

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        start, end = int(canvas.block_end[row]), int(canvas.length[row])
        return None if start >= end else (start, end)

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        return canvas.masked() & (np.arange(canvas.capacity) < canvas.block_end[:, None])

    def refine(self, view: View) -> np.ndarray | None:
        return None

    def expected(self, instability: float) -> float:
        """lambda of the next window's length; a negative instability = no window yet."""
        if instability < 0:
            return min(self.first_window, self.largest_window)
        spread = self.largest_window - self.smallest_window
        return self.smallest_window + spread * (1 - instability)

"""Values of an option that change while a sequence is decoded.

Any option typed `Value` takes a number or, from the command line, a schedule in its place:
`+schedule@sampler.threshold=linear sampler.threshold.end=0.7`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step.canvas import Canvas
from dllm.step.prediction import View


class Schedule(Protocol):
    """A value per sequence and step; knows nothing of what it is used for."""

    def values(self, canvas: Canvas) -> Float[np.ndarray, "batch"]:
        """The value for the step about to be decided."""
        ...

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value that can occur."""
        ...


Value = float | Schedule


@dataclass(frozen=True, kw_only=True)
class Linear:
    """start + slope * n, held at `end` once it is reached; n counts steps.

    dInfer's iteration smoothing is start 1, slope -0.02, end 0.8, over the sequence.
    """

    start: float
    slope: float
    """Change per step; its sign must lead from `start` to `end`."""
    end: float
    over: Literal["sequence", "block"]
    """Where n starts at 0 again."""

    def __post_init__(self) -> None:
        if (self.end - self.start) * self.slope < 0 or (self.slope == 0 and self.end != self.start):
            raise ConfigError(
                f"schedule: slope={self.slope} does not lead from start={self.start} "
                f"to end={self.end}"
            )

    def values(self, canvas: Canvas) -> Float[np.ndarray, "batch"]:
        n = canvas.step if self.over == "sequence" else canvas.step_in_block
        low, high = self.extremes()
        return np.clip(self.start + self.slope * n, low, high)

    def extremes(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True, kw_only=True)
class PerBlock:
    """One value per block; the last one serves all later blocks."""

    values_by_block: Sequence[float]

    def __post_init__(self) -> None:
        if not self.values_by_block:
            raise ConfigError("schedule: values_by_block=[] must hold at least one value")

    def values(self, canvas: Canvas) -> Float[np.ndarray, "batch"]:
        table = np.asarray(self.values_by_block, dtype=np.float64)
        return table[np.minimum(canvas.block_index, len(table) - 1)]

    def extremes(self) -> tuple[float, float]:
        return min(self.values_by_block), max(self.values_by_block)


def current(
    value: Value, view: View, score: Float[Tensor, "batch rows"]
) -> float | Float[Tensor, "batch 1"]:
    """An option's value in this step, to be compared with `score`: the number itself, or a column
    with one entry per sequence."""
    if isinstance(value, (int, float)):
        return value
    return view.column(value.values(view.canvas)).to(score.dtype)


def extremes(value: Value) -> tuple[float, float]:
    """Smallest and largest value that an option can take."""
    return (value, value) if isinstance(value, (int, float)) else value.extremes()

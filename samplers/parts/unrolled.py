"""dInfer's unrolling: several forwards between two tests whether the block is complete.

k = clamp(masks // expected_tpf, 1, maximum_unroll) forwards are made before the next test; those on
a block that is already complete commit nothing but are made and counted. It saves dInfer
host-device synchronisations; here it only reproduces its forward counts.
"""

from dataclasses import dataclass

import torch

from dllm.errors import ConfigError
from dllm.step.canvas import Canvas
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField


_NEXT_TEST = "unrolled_until"


@dataclass(frozen=True, kw_only=True)
class Unrolled(Sampler):
    maximum_unroll: int
    """Most forwards between two tests (>= 1); 1 = test after every forward."""
    expected_tpf: int
    """Commits per forward that are counted on (>= 1)."""

    def __post_init__(self) -> None:
        for option in ("maximum_unroll", "expected_tpf"):
            value = getattr(self, option)
            if value < 1:
                raise ConfigError(f"sampler.{option}={value} must be >= 1")

    def fields(self) -> tuple[StateField, ...]:
        until = StateField(_NEXT_TEST, dtype=torch.int64, reset="block")
        return (*super().fields(), until)

    def max_steps(self, positions: int) -> int:
        return positions * self.maximum_unroll

    def observe(self, view: View, state: SamplerState) -> None:
        super().observe(view, state)
        canvas, until = view.canvas, state[_NEXT_TEST]
        for row in range(canvas.batch if self.maximum_unroll > 1 else 0):
            if canvas.step_in_block[row] == until[row]:
                wanted = canvas.masked_in_block(row) // self.expected_tpf
                until[row] += min(max(wanted, 1), self.maximum_unroll)

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        complete = super().block_done(canvas, row, state)
        return complete and bool(canvas.step_in_block[row] >= int(state[_NEXT_TEST][row]))

"""rho-EOS (arXiv 2601.22527): the share of predicted end tokens lengthens or shortens the answer.

Rule: commits as DAEDAL's second stage; then, with rho = masked positions predicting an end token /
masked positions, rho < low_density appends K masks and rho > high_density removes the last K
positions, K = 8 * min(8, m): m = 1 (`const`), s (`linear`) or 2^(s-1) (`exp`, default), where s =
ceil(distance to the nearer density / 0.1). No change after length_steps steps or once the longest
length was reached.

The released code passes DAEDAL's end confidence for rho (`rho: eosconf`) and cuts committed text,
too: at true length 10 it can delete the whole answer. Here a committed token other than an end
token is never cut, unless `cut_committed` (official).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step.decision import Decision
from dllm.step.prediction import View
from dllm.step.state import SamplerState, StateField
from samplers.parts.flexible_length import FlexibleLength


UNIT, MOST_UNITS, SEGMENT = 8, 8, 0.1


@dataclass(frozen=True, kw_only=True)
class RhoEOS(FlexibleLength):
    low_density: float
    """rho below which the answer grows, in [0, 1]."""
    high_density: float
    """rho above which it shrinks, in [low_density, 1]."""
    step_size: Literal["const", "linear", "exp"]
    rho: Literal["paper", "eosconf"]
    """Share of predicted ends, or DAEDAL's end confidence as in the released code."""
    cut_committed: bool
    """Cut committed tokens as well, as in the released code."""
    length_steps: int
    """Steps after which the length stays (>= 0)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low_density <= self.high_density <= 1:
            raise ConfigError(
                f"sampler.low_density={self.low_density}, high_density={self.high_density} are not "
                "0 <= low <= high <= 1"
            )

    def fields(self) -> tuple[StateField, ...]:
        return (*super().fields(), StateField("settled", dtype=torch.bool))

    def change(self, rho: Float[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """Positions to add (> 0) or to remove (< 0)."""
        short, long = self.low_density - rho, rho - self.high_density
        distance = torch.maximum(short, long)
        # 0.7 - 0.6 is one segment, not two: away from the borders nothing is lost by the margin.
        segments = (distance / SEGMENT - 1e-9).ceil().clamp(min=1)
        if self.step_size == "const":
            units = torch.ones_like(segments)
        else:
            units = segments if self.step_size == "linear" else 2 ** (segments - 1)
        size = UNIT * units.clamp(max=MOST_UNITS).long()
        return torch.where(short > 0, size, torch.where(long > 0, -size, 0))

    def density(self, view: View) -> Float[Tensor, "batch"]:
        if self.rho == "eosconf":
            return self.end_confidence(view)
        masked = self.masked(view)
        ends = (masked & self.predicts_end(view)).sum(dim=1)
        return ends.double() / masked.sum(dim=1).clamp(min=1)

    def masked(self, view: View) -> Bool[Tensor, "batch rows"]:
        return (view.positions >= 0) & (view.tokens == view.canvas.mask_id)

    def select(self, view: View, state: SamplerState) -> Decision:
        decision = super().select(view, state)
        view = self.transform(view, state)
        length, longest = view.column(view.canvas.length)[:, 0], self.longest(view)
        settled = state["settled"] | (view.column(view.canvas.step)[:, 0] >= self.length_steps)
        wanted = torch.minimum(length + self.change(self.density(view)), longest)
        if not self.cut_committed:
            final = decision.tokens.where(decision.commit, view.tokens)
            ends = torch.isin(final, view.positions.new_tensor(view.canvas.eos_ids))
            text = (decision.commit | view.decided) & ~ends
            last = torch.where(text, view.positions + 1, 0).amax(dim=1)
            wanted = torch.maximum(wanted, last)
        start = view.column(view.canvas.prompt_length)[:, 0]
        # An answer of no positions could not grow again.
        wanted = torch.maximum(wanted, start + (0 if self.cut_committed else 1))
        return Decision(
            decision.commit,
            decision.tokens,
            decision.score,
            length=torch.where(settled, length, wanted),
            updates={"settled": settled | (length >= longest)},
        )

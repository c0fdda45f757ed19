"""What DAEDAL and rho-EOS share: commits by a strict threshold, and how sure the end is."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.plan import Need, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval, not_below


@dataclass(frozen=True, kw_only=True)
class FlexibleLength(Sampler):
    """Reads the whole generation region at every step; for a region with a growing canvas."""

    high_threshold: float
    """Confidence above which a position is committed, in [0, 1]."""
    eos_window: int
    """End tokens over which the end's confidence is taken (>= 2)."""

    needs: ClassVar[frozenset[Need]] = frozenset({"fresh_logits"})
    decides_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        in_unit_interval("high_threshold", self.high_threshold)
        not_below("eos_window", self.eos_window, 2)

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        index = np.arange(canvas.capacity)
        generated = (index >= canvas.prompt_length[:, None]) & (index < canvas.length[:, None])
        return Request(pad_positions(generated))

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        sure = view.candidates & (score > self.high_threshold)
        return sure.where(sure.any(dim=1, keepdim=True), scores.best(score, view.candidates))

    def predicts_end(self, view: View) -> Bool[Tensor, "batch rows"]:
        """Rows that predict the end token that fills a canvas; an end of turn is none, as in both
        official codes."""
        return (view.positions >= 0) & (view.top[1] == view.canvas.eos_ids[0])

    def end_confidence(self, view: View) -> Float[Tensor, "batch"]:
        """Sum of p over the rightmost `eos_window` positions that predict the end token, divided by
        eos_window, not by their number."""
        ends = self.predicts_end(view)
        from_right = ends.flip(1).cumsum(dim=1).flip(1)
        p = scores.top_confidence(view.logits, self.conf_dtype).double()
        return p.masked_fill(~ends | (from_right > self.eos_window), 0).sum(dim=1) / self.eos_window

    def longest(self, view: View) -> Int[Tensor, "batch"]:
        """Length that each sequence may reach: its prompt and gen_length."""
        most = [len(p.tokens) + p.gen_length for p in view.canvas.prompts]
        return view.positions.new_tensor(most)

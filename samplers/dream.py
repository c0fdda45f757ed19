"""Dream's own decoding (Dream 7B, arXiv 2508.15487): a time schedule over one region without
blocks.

With t_i = linspace(1, eps, steps + 1), step i reveals k = floor(n * (1 - t_{i+1} / t_i)) of n
masks, the last step all. `maskgit_plus` ranks by probability, `topk_margin` by p1 - p2, `entropy`
by negative entropy, each of the filtered distribution; with alg_temp the k positions are drawn
without replacement from softmax(score / alg_temp). `origin` reveals every mask with probability 1 -
t_{i+1} / t_i. Because of the floor, steps = gen_length reveals nothing first and two last.
All steps are forwards. The official batch shares one k, which writes masks over decided positions
in rows that have fewer masks left; each row has its own here.

Authors' settings: entropy, alg_temp 0, steps = gen_length; Instruct temperature 0.1, top_p 0.9;
Base 0.2 (code) or 0, top_p 0.95; planning tasks top_p 1. No table in the repository. ParallelBench
(arXiv 2510.04767) runs it with eps 0, meant to reveal k in every step; floored in float32, one step
reveals one less and the last one more.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


@dataclass(frozen=True, kw_only=True)
class Dream(Sampler):
    alg: Literal["origin", "maskgit_plus", "topk_margin", "entropy"]
    steps: int | None
    """Forwards over the whole answer; null = gen_length."""
    eps: float
    """Time at which the schedule ends, in [0, 1)."""
    alg_temp: float | None
    """Temperature of the choice of positions (>= 0); null or 0 = the best ones."""

    may_commit_nothing: ClassVar[bool] = True
    fresh_draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"sampler.steps={self.steps} must be >= 1")
        if not 0 <= self.eps < 1:
            raise ConfigError(f"sampler.eps={self.eps} is outside [0, 1)")
        if self.alg_temp is not None and self.alg_temp < 0:
            raise ConfigError(f"sampler.alg_temp={self.alg_temp} must be >= 0")

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        if self.region.blocks(gen_length) != 1:
            raise ConfigError(
                "sampler.region: Dream's time schedule is global, it needs one block "
                "(sampler.region.block_length=null)"
            )

    def scheduled_steps(self, gen_length: int) -> int:
        return self.steps or gen_length

    def max_steps(self, positions: int) -> int:
        return max(self.steps or 0, positions) + positions

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        made = canvas.step_in_block[row] >= self.scheduled_steps(canvas.prompts[row].gen_length)
        return bool(made) and super().block_done(canvas, row, state)

    def revealed(self, steps: int, step: int) -> float:
        """Share of the masks that this step reveals; float32 as in the official code."""
        if step >= steps - 1:
            return 1.0
        times = torch.linspace(1, self.eps, steps + 1)
        return float(1 - times[step + 1] / times[step])

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        if self.alg == "topk_margin":
            return scores.margin(view.logits, self.conf_dtype)
        if self.alg == "entropy":
            return -scores.entropy(view.logits, self.conf_dtype)
        return super().score(view, tokens)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        canvas = view.canvas
        share = np.array(
            [
                self.revealed(self.scheduled_steps(prompt.gen_length), int(step))
                for prompt, step in zip(canvas.prompts, canvas.step_in_block, strict=True)
            ],
            dtype=np.float32,
        )
        if self.alg == "origin":
            return view.candidates & (view.uniform() < view.column(share))
        # Of all masks, also where a window leaves fewer candidates.
        masks = view.column(canvas.masked().sum(axis=1).astype(np.float32))
        k = (masks * view.column(share))[:, 0].floor().long()
        if self.alg_temp:
            # The k largest of log-weights plus Gumbel noise: k draws without replacement.
            noise = -(-view.uniform().log()).log()
            score = score / self.alg_temp + noise
        return scores.top_k(score, view.candidates, k)

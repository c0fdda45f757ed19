"""DiffusionGemma's decoding: a block of random tokens is denoised whole, accepted by entropy.

Step n of N on a block predicts every position, conditioned on the step before, at temperature
t_min + (t_max - t_min) (N - n) / N, n from 0. A token is drawn at every position; in ascending
order of entropy those stay with which

    sum of the entropies before <= entropy_bound (nats),

at least one, all others become random tokens again. Nothing is decided before the block ends: when
the most likely tokens are those of the last `stability_threshold` steps and the mean entropy is
below `confidence_threshold`, or after N steps. Then these tokens are the block's answer.

As transformers' `generation_diffusion_gemma.py` [code], to the token with equal seeds at batch 1
(float32), whose defaults these are; eos=cut_after_block ends an answer as it does. The bound is
EB-Sampler's (arXiv 2505.24857).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import Noise
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import not_below
from samplers.parts.whole_blocks import WholeBlocks


_PREDICTED, _LATEST = "gemma_predicted", "gemma_latest"


@dataclass(frozen=True, kw_only=True)
class DiffusionGemma(Sampler):
    region: WholeBlocks
    """What a step predicted is read by the next one: all blocks of a batch are of one length."""
    max_denoising_steps: int
    """N, steps of a block at most (>= 1)."""
    entropy_bound: float
    """Nats (> 0)."""
    t_max: float | None
    """Temperature of the first step; null, here or in `t_min` = the logits as they are."""
    t_min: float | None
    """Temperature that the last steps approach (>= 0), below `t_max`."""
    stability_threshold: int | None
    """Earlier steps whose most likely tokens must be the same (>= 0); null, here or in
    `confidence_threshold` = every block takes N steps."""
    confidence_threshold: float | None
    """Bound on the mean entropy of a block that is stopped, in nats (> 0)."""

    noise: ClassVar[Noise] = "uniform"
    may_commit_nothing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        not_below("max_denoising_steps", self.max_denoising_steps, 1)
        for name in ("entropy_bound", "confidence_threshold"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"sampler.{name}={value} must be > 0")
        if self.stability_threshold is not None:
            not_below("stability_threshold", self.stability_threshold, 0)
        if self.t_min is not None:
            not_below("t_min", self.t_min, 0)
            if self.t_max is not None and self.t_max <= self.t_min:
                raise ConfigError(
                    f"sampler.t_max={self.t_max} must be above sampler.t_min={self.t_min}"
                )

    def fields(self) -> tuple[StateField, ...]:
        return (
            *super().fields(),
            # Logits of the block's last step, as wide as block and vocabulary once there are any.
            StateField(_PREDICTED, (0, 0), fill=torch.nan, reset="block"),
            # By position, of which every block has its own.
            StateField(_LATEST, (self.stability_threshold or 0, "canvas"), torch.int64, -1),
        )

    def max_steps(self, positions: int) -> int:
        # A block has one position at least.
        return positions * self.max_denoising_steps

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        earlier = state[_PREDICTED]
        conditioning = earlier if earlier.shape[1] else None
        return Request(pad_positions(eligible), conditioning=conditioning)

    def transform(self, view: View, state: SamplerState) -> View:
        view = super().transform(view, state)
        if self.t_min is None or self.t_max is None:
            return view
        left = self.max_denoising_steps - view.canvas.step_in_block
        t = self.t_min + (self.t_max - self.t_min) * left / self.max_denoising_steps
        return view.with_logits(view.logits / view.column(t).to(view.logits.dtype)[..., None])

    def select(self, view: View, state: SamplerState) -> Decision:
        view = self.transform(view, state)
        drawn = self.proposer.propose(view)
        entropy = scores.entropy(view.logits, self.conf_dtype)
        accepted = self._accepted(entropy)
        answer = view.top[1]
        last = view.column(view.canvas.step_in_block) + 1 >= self.max_denoising_steps
        history, stable = self._history(view, answer, state[_LATEST])
        done = last[:, 0] | (stable & self._confident(entropy))
        return Decision(
            commit=view.candidates & done[:, None],
            tokens=answer,
            score=-entropy,
            noise=drawn.where(accepted, _random(view)),
            marks={"accepted": accepted},
            updates={_PREDICTED: view.logits, _LATEST: history},
        )

    def _accepted(self, entropy: Float[Tensor, "batch rows"]) -> Bool[Tensor, "batch rows"]:
        ranked, order = entropy.sort(dim=-1, stable=True)
        within = ranked.cumsum(dim=-1) - ranked <= self.entropy_bound
        return torch.zeros_like(within).scatter(-1, order, within)

    def _history(
        self, view: View, answer: Int[Tensor, "batch rows"], latest: Tensor
    ) -> tuple[Tensor, Bool[Tensor, "batch"]]:
        """The most likely tokens of the last steps [batch, steps, canvas], this one included, and
        whether those before were the same."""
        at = view.positions[:, None].expand(-1, latest.shape[1], -1)
        same = (latest.gather(2, at) == answer[:, None]).all(dim=-1).all(dim=-1)
        if not latest.shape[1]:
            return latest, same
        now = view.on_canvas(answer, latest[:, -1])
        return torch.cat((latest[:, 1:], now[:, None]), dim=1), same

    def _confident(self, entropy: Float[Tensor, "batch rows"]) -> Bool[Tensor, "batch"]:
        if self.stability_threshold is None or self.confidence_threshold is None:
            return torch.zeros_like(entropy[:, 0], dtype=torch.bool)
        return entropy.mean(dim=-1) < self.confidence_threshold


def _random(view: View) -> Int[Tensor, "batch rows"]:
    """A random token per row, from each sequence's own generator."""
    canvas, rows = view.canvas, view.positions.shape[1]
    drawn = [
        torch.randint(canvas.noise_tokens, (rows,), generator=generator, device=generator.device)
        for generator in canvas.generators
    ]
    return torch.stack(drawn).to(view.device)

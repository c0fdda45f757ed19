"""Fast-dLLM for Dream without cache (arXiv 2505.22618): a threshold inside a growing budget.

Rule: q = gen_length / steps positions fall due per step. A step looks at the budget = q + carry
most confident masks of the whole region (no blocks); the best one is committed, the others if
confidence >= threshold; the rejected ones are the next step's carry. When the last nominal step
rejects some, q becomes 0 and one step is added, and so on until none is left. After i steps at most
q * i positions are out: with steps = gen_length it is never faster than one token per step, the
official scripts use gen_length / 32. Confidence of the filtered distribution, no probability
of the model (top_p 0.9 lifts everything above 0.9 to 1), in the logits' dtype.

With a cache the official code decodes in blocks instead: `opening` around `threshold`. Settings:
threshold 0.9, gen_length 256 or 512; results of Table 2 are in results/published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.schedule import Value, current
from dllm.step.state import SamplerState
from samplers.parts.checks import in_unit_interval


@dataclass(frozen=True, kw_only=True)
class FastDLLMDream(Sampler):
    threshold: Value
    """Confidence from which a position is committed, in [0, 1]."""
    steps: int
    """Nominal steps (>= 1), a divisor of gen_length."""

    batch_one: ClassVar[bool] = True

    def __post_init__(self) -> None:
        in_unit_interval("threshold", self.threshold)
        if self.steps < 1:
            raise ConfigError(f"sampler.steps={self.steps} must be >= 1")

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        if gen_length % self.steps:
            raise ConfigError(f"sampler.steps={self.steps} does not divide gen_length={gen_length}")

    def due(self, canvas: Canvas) -> Int[np.ndarray, "batch"]:
        """Positions looked at: all that have fallen due and are not out yet.

        What was rejected is carried over, so it is the due total minus the commits so far.
        """
        gen_length = np.array([prompt.gen_length for prompt in canvas.prompts])
        total = gen_length // self.steps * np.minimum(canvas.step + 1, self.steps)
        return total - (gen_length - canvas.masked().sum(axis=1))

    def looked_at(
        self, score: Float[Tensor, "batch rows"], view: View
    ) -> Bool[Tensor, "batch rows"]:
        due = torch.as_tensor(self.due(view.canvas), device=score.device)
        return scores.top_k(score, view.candidates, due)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        threshold = current(self.threshold, view, score)
        return scores.at_least(score, self.looked_at(score, view), threshold)

    def marks(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Mapping[str, Bool[Tensor, "batch rows"]]:
        return {"budget": self.looked_at(score, view)}

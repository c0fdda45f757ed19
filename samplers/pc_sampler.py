"""PC-Sampler (arXiv 2508.13021): rank by position and by how far a token exceeds its background.

Rule: static quota, but ranked by exp(-lambda * j) * min(-c * ln(f + 1e-9), alpha): j the index
inside the block, c the proposal's probability, f its frequency in a background corpus (unseen:
counted once). Trivial tokens (end of text, punctuation) come late, left ones early.

`background` is a table made by `python -m scripts.background` from text; null takes every token as
equally frequent, which leaves position and probability. Authors' settings: alpha 10, lambda 0.25
(Sudoku 0; Countdown 0.5 or 1), one block, one token per step, HumanEval 256, MBPP 128, MATH-500
1024. Published: GSM8K 82.2 (model not named). The official README leaves out the minus sign, its
code has it. With several blocks j starts anew in each. Left out: the code's variant
`linear_position`, which mixes a normalised score with a linear one of place.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm.models.spec import ModelSpec
from dllm.step.prediction import View
from samplers.parts import background
from samplers.parts.checks import not_below
from samplers.parts.quota import StaticQuota


@dataclass(frozen=True, kw_only=True)
class PCSampler(StaticQuota):
    position_decay: float
    """lambda: decay of the weight per position inside the block (>= 0)."""
    clip: float
    """alpha: bound on the calibrated confidence (>= 0)."""
    background: str | None
    """File with the background frequencies; null = all tokens alike."""

    def __post_init__(self) -> None:
        not_below("position_decay", self.position_decay, 0)
        not_below("clip", self.clip, 0)
        if self.background is not None:
            background.check("sampler.background", self.background)

    def check_model(self, spec: ModelSpec) -> None:
        super().check_model(spec)
        if self.background is not None:
            background.check_vocabulary("sampler.background", self.background, spec.vocab_size)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        c = super().score(view, tokens)
        vocabulary = view.logits.shape[-1]
        if self.background is None:
            f = torch.full_like(c, 1 / vocabulary)
        else:
            table = background.frequencies(self.background, vocabulary, view.device)
            f = table[tokens].to(c.dtype)
        j = view.positions - view.column(view.canvas.block_start)
        return torch.exp(-self.position_decay * j).to(c.dtype) * (-c * (f + 1e-9).log()).clamp(
            max=self.clip
        )

"""Two-stage alignment of a drafter (DEER, arXiv 2512.15176, section 3.2): what its batches hide.

The answers are the verifier's own. Each is cut at a random point and the separator stands from
there on [inferred: the paper has one, behind the cut], so that the model learns to continue a
prefix by a given number of tokens instead of finishing the answer. Stage I hides tokens of the cut
answer as LLaDA's training does, as in the paper's figure 3, or its last ones, as its text has it
("mask the suffix"): `hidden`; stage II the last ones only, the more heavily weighted the nearer
they are to the prefix: verification stops at the first wrong one.

End tokens that fill the row belong to the answer here. No normalisation of stage II's weights is
given; they are divided by their sum over the batch [inferred].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.training.batches import Batch, Objective, check_tokens, mask_responses
from dllm.training.checks import not_below


@dataclass(frozen=True, kw_only=True)
class Cut(Objective):
    """Of answers that end anywhere, with the separator behind."""

    separator: int
    """Token id."""

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        check_tokens(f"recipe.objective.separator={self.separator}", [self.separator], spec)


@dataclass(frozen=True, kw_only=True)
class Distillation(Cut):
    """Stage I: continuation of a prefix."""

    hidden: Literal["scattered", "suffix"]
    """Each token at the row's rate t, or the last ones, about a share t."""

    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        """`tokens` int64 [rows, length], `prompt_lengths` int64 [rows]."""
        tokens, cut = _cut(tokens, prompt_lengths, self.separator, generator)
        suffix = self.hidden == "suffix"
        return mask_responses(tokens, prompt_lengths, mask_id, generator, cut, suffix=suffix)


@dataclass(frozen=True, kw_only=True)
class Refinement(Cut):
    """Stage II: the last tokens before the cut."""

    longest: int
    """Most tokens that are hidden (paper: 96)."""
    alpha: float
    """Weight of a token relative to the one behind it (paper: 1.01; 1.05 diverges there)."""

    def __post_init__(self) -> None:
        not_below(self, "objective", 1, "longest")
        if not self.alpha > 0:
            raise ConfigError(f"objective.alpha={self.alpha} must be > 0")

    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        """`tokens` int64 [rows, length], `prompt_lengths` int64 [rows]."""
        tokens, cut = _cut(tokens, prompt_lengths, self.separator, generator)
        rows, length = tokens.shape
        most = (cut - prompt_lengths).clamp(max=self.longest)
        hidden = 1 + (torch.rand(rows, generator=generator) * most).long()
        behind = cut[:, None] - 1 - torch.arange(length)
        chosen = (behind >= 0) & (behind < hidden[:, None])
        masked = chosen.flatten().nonzero().squeeze(1)
        weights = (self.alpha ** behind.clamp(min=0).float()).flatten()[masked]
        return Batch(
            tokens=torch.where(chosen, mask_id, tokens),
            masked=masked,
            targets=tokens.flatten()[masked],
            # The trainer divides by the rows.
            weights=weights * rows / weights.sum(),
        )


def _cut(
    tokens: Tensor, prompt_lengths: Tensor, separator: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows with the separator from a random point of the answer on, and that point [rows]: 1 to all
    tokens of the answer stay."""
    rows, length = tokens.shape
    kept = 1 + (torch.rand(rows, generator=generator) * (length - prompt_lengths)).long()
    cut = prompt_lengths + kept
    return tokens.where(torch.arange(length) < cut[:, None], separator), cut

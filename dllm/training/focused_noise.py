"""LLaDA's objective with two kinds of rows more, for what uniform masks hardly train.

A `focused` row hides tokens of a given set only, for example digits: all that a result is computed
from, and the layout around it, stay in sight, and the loss falls on nothing that could be copied.
A `late` row draws its noise from the low end, t = u^2: most of the answer stands, as in the last
steps of decoding, where one wrong token spoils what must agree as a whole.

The number of hidden tokens is drawn, not each token by itself, and the loss is their mean: the same
expectation with less variance, and no row hides nothing (as LLaDA estimates likelihoods, arXiv
2502.09992, algorithm 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.training.batches import Batch, Objective, check_tokens


@dataclass(frozen=True, kw_only=True)
class FocusedNoise(Objective):
    focused: float
    """Share of the rows that hide `tokens` only, of those that have some in their response."""
    tokens: Sequence[int]
    """Token ids."""
    late: float
    """Share of the rows with low noise."""

    def __post_init__(self) -> None:
        for name in ("focused", "late"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"objective.{name}={getattr(self, name)} is outside [0, 1]")
        if self.focused and not self.tokens:
            raise ConfigError(f"objective.focused={self.focused}: objective.tokens=[] names none")

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        check_tokens(f"recipe.objective.tokens={list(self.tokens)}", self.tokens, spec)

    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        """`tokens` int64 [rows, length], `prompt_lengths` int64 [rows]."""
        rows, length = tokens.shape
        # stratified over the rows, which come in random order of kind
        u = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
        late, focused = (
            torch.rand(rows, generator=generator) < share for share in (self.late, self.focused)
        )
        t = torch.where(late, u.square(), u)
        response = torch.arange(length) >= prompt_lengths[:, None]
        special = response & torch.isin(tokens, torch.tensor(self.tokens))
        focused &= special.any(dim=1)
        eligible = torch.where(focused[:, None], special, response)
        count = (t * eligible.sum(dim=1)).ceil().clamp(min=1)
        chance = torch.rand(rows, length, generator=generator).masked_fill(~eligible, 2.0)
        hidden = chance.argsort(dim=1).argsort(dim=1) < count[:, None]
        weights = (1 / count)[:, None].expand(-1, length)
        return Batch(
            tokens=tokens.masked_fill(hidden, mask_id),
            masked=hidden.flatten().nonzero().squeeze(1),
            targets=tokens[hidden],
            weights=weights[hidden],
        )

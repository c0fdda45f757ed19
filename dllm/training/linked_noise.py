"""LLaDA's objective where, in some rows, what tells the same thing is hidden together.

Masks drawn independently leave copies in sight: a sum that is written twice is read off its other
place and never computed. `linked` rows hide equal tokens together, `ordered` rows hide everything
from a random place on, as a decoding from left to right meets it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dllm.training.batches import MIN_NOISE, Batch


@dataclass(frozen=True)
class LinkedNoise:
    linked: float
    """Share of the rows that hide equal tokens together."""
    ordered: float
    """Share of the rows that hide everything from a place on."""
    reach: int
    """In ordered rows the first hidden tokens that count: what lies further is hardly known."""

    focused: float = 0.0
    """Share of the rows that hide `focus` only."""
    focus: tuple[int, ...] = ()
    """Token ids."""

    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        """`tokens` int64 [rows, length], `prompt_lengths` int64 [rows]."""
        rows, length = tokens.shape
        t = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
        t = (MIN_NOISE + (1 - MIN_NOISE) * t)[:, None]
        index = torch.arange(length)
        response = index >= prompt_lengths[:, None]
        size = length - prompt_lengths[:, None]
        chance = torch.rand(rows, length, generator=generator)
        of_token = torch.rand(rows, int(tokens.max()) + 1, generator=generator).gather(1, tokens)
        way = torch.rand(rows, 1, generator=generator)
        chance = torch.where(way < self.linked, of_token, chance)
        hidden = response & (chance < t)
        weights = 1 / (t * size)
        # an ordered row's place lies before its last token that isn't EOS
        ordered = (way >= self.linked) & (way < self.linked + self.ordered)
        ends = length - (tokens == tokens[:, -1:]).flip(1).cumprod(1).sum(1, keepdim=True) + 1
        place = prompt_lengths[:, None] + (t * (ends - prompt_lengths[:, None])).long()
        hidden = torch.where(ordered, index >= place, hidden)
        near = (index >= place) & (index < place + self.reach)
        weights = torch.where(ordered, near / near.sum(1, keepdim=True), weights.expand(-1, length))
        focused = (way >= self.linked + self.ordered) & (way < self.linked + self.ordered + self.focused)
        seen = response & torch.isin(tokens, torch.tensor(self.focus, dtype=torch.long))
        focused = focused & (seen.sum(1, keepdim=True) > 2)
        hidden = torch.where(focused, seen & (chance < t), hidden)
        weights = torch.where(focused, 1 / (t * seen.sum(1, keepdim=True).clamp(min=1)), weights)
        counted = (hidden & (weights > 0)).flatten().nonzero().squeeze(1)
        return Batch(
            tokens=tokens.masked_fill(hidden, mask_id),
            masked=counted,
            targets=tokens.flatten()[counted],
            weights=weights.flatten()[counted],
        )

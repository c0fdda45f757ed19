"""WeDLM's training objective (arXiv 2512.22737): a causal model that fills masks and still reads
on.

Each row is fed twice, both times at positions 0..L-1: as it is (clean stream) and with masks
(prediction stream). The prediction stream is cut into blocks; per block a share gamma ~ U(0, 1) of
the response tokens is masked and what is known moves in front of the masks. A row of the clean
stream sees the clean stream up to itself; one of block k sees the clean blocks before k and its own
block up to itself, in the new order. So a mask meets at training what it meets in a decoding
window.

Loss: cross entropy of the masked tokens weighted by 1 / gamma, normalised by the sum of the weights
[code], plus `ar_weight` times that of the clean stream's next tokens, divided by 1 + ar_weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import AttentionKind
from dllm.training.batches import Batch, Objective
from dllm.training.checks import not_below


@dataclass(frozen=True)
class DualStream(Objective):
    attention: ClassVar[AttentionKind] = "causal"
    block: int = 32
    """Positions per block of the prediction stream (paper: 32)."""
    ar_weight: float = 1.0
    """Of the next-token loss on the clean stream's response."""

    def __post_init__(self) -> None:
        not_below(self, "objective", 1, "block")
        if not self.ar_weight >= 0:
            raise ConfigError(f"objective.ar_weight={self.ar_weight} must be >= 0")

    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        """`tokens` int64 [rows, length], `prompt_lengths` int64 [rows]."""
        rows, length = tokens.shape
        response = torch.arange(length) >= prompt_lengths[:, None]
        masked, weights = self._mask(response, generator)
        order = self._order(masked)
        noisy = tokens.masked_fill(masked, mask_id).gather(1, order)
        shown = torch.cat((torch.zeros_like(masked), masked.gather(1, order)), dim=1)
        shown_weights = torch.cat((torch.zeros(rows, length), weights.gather(1, order)), dim=1)
        # The clean row before a response token predicts it.
        reading = torch.zeros(rows, 2 * length, dtype=torch.bool)
        reading[:, : length - 1] = response[:, 1:]
        following = torch.cat((tokens.roll(-1, dims=1), tokens.gather(1, order)), dim=1)
        share = shown_weights / shown_weights.sum().clamp(min=1e-8)
        share = share + self.ar_weight * reading / reading.sum()
        chosen = (shown | reading).flatten().nonzero().squeeze(1)
        return Batch(
            tokens=torch.cat((tokens, noisy), dim=1),
            masked=chosen,
            targets=following.flatten()[chosen],
            # The trainer divides by the rows.
            weights=share.flatten()[chosen] * rows / (1 + self.ar_weight),
            positions=torch.cat((torch.arange(length).expand(rows, -1), order), dim=1),
            visible=self.visible(length),
        )

    def _mask(self, response: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Masked tokens [rows, length], and 1 / gamma of their block."""
        rows, length = response.shape
        masked = torch.zeros_like(response)
        weights = torch.zeros(rows, length)
        for start in range(0, length, self.block):
            part = slice(start, start + self.block)
            count = response[:, part].sum(dim=1)
            gamma = torch.rand(rows, generator=generator).clamp(min=1e-8)
            chance = torch.rand(response[:, part].shape, generator=generator)
            rank = chance.masked_fill(~response[:, part], 2.0).argsort(dim=1).argsort(dim=1)
            masked[:, part] = rank < (gamma * count).round()[:, None]
            weights[:, part] = masked[:, part] / gamma[:, None]
        return masked, weights

    def _order(self, masked: Tensor) -> Tensor:
        """Position of each row of the prediction stream: per block known first, then masked."""
        length = masked.shape[1]
        block = torch.arange(length) // self.block
        return (2 * block + masked).argsort(dim=1, stable=True)

    def visible(self, length: int) -> Tensor:
        """What each of the 2 * length rows attends to."""
        index = torch.arange(length)
        block = index // self.block
        causal = index[:, None] >= index
        mask = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
        mask[:length, :length] = causal
        mask[length:, :length] = block[:, None] > block
        mask[length:, length:] = causal & (block[:, None] == block)
        return mask

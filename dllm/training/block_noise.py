"""Block diffusion's training objective (SDAR, TDAR): masked blocks beside their clean past.

Each row is fed twice, both times at positions 0..L-1: with masks (noisy half) and as it is (clean
half). A noisy block attends to itself and the clean blocks before it, a clean block to the clean
blocks up to itself: what a block meets in training is what it meets in decoding, its past complete.
Every response token is masked with p = (1 - 1e-3) t + 1e-3, one t ~ U(0, 1) per row (stratified
over the rows) or, with `noise: block`, per block of a row; at least one token per row is masked.
Loss per row: sum of the masked tokens' cross entropy / p, divided by the response's length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.training.batches import MIN_NOISE, Batch, Objective
from dllm.training.checks import not_below


@dataclass(frozen=True)
class BlockNoise(Objective):
    attention: ClassVar[AttentionKind] = "block_causal"
    block: int = 8
    """Positions per block of the attention, counted from position 0."""
    noise: Literal["row", "block"] = "row"
    """What shares a mask probability; official: the row."""

    def __post_init__(self) -> None:
        not_below(self, "objective", 1, "block")

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        if self.block != spec.block_size:
            raise ConfigError(
                f"recipe.objective.block={self.block} is not the block_size={spec.block_size} of "
                "the model's attention"
            )

    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        """`tokens` int64 [rows, length], `prompt_lengths` int64 [rows]."""
        rows, length = tokens.shape
        response = torch.arange(length) >= prompt_lengths[:, None]
        p = self._probability(rows, length, generator)
        chance = torch.rand(rows, length, generator=generator)
        masked = response & (chance < p)
        # Where nothing was hidden, the token that came closest.
        empty = ~masked.any(dim=1)
        closest = (chance - p).masked_fill(~response, 2.0).argmin(dim=1)
        masked[empty, closest[empty]] = True
        weights = 1 / (p * response.sum(dim=1, keepdim=True))
        at = masked.nonzero()
        return Batch(
            tokens=torch.cat((tokens.masked_fill(masked, mask_id), tokens), dim=1),
            masked=at[:, 0] * 2 * length + at[:, 1],
            targets=tokens[masked],
            weights=weights[masked],
            positions=torch.arange(length).repeat(rows, 2),
            visible=self.visible(length),
        )

    def _probability(self, rows: int, length: int, generator: torch.Generator) -> Tensor:
        """p of every position [rows, length]."""
        blocks = 1 if self.noise == "row" else -(-length // self.block)
        t = torch.rand(rows, blocks, generator=generator)
        if self.noise == "row":
            t = (torch.arange(rows)[:, None] + t) / rows
        t = MIN_NOISE + (1 - MIN_NOISE) * t
        return t[:, torch.arange(length) // self.block] if blocks > 1 else t.expand(-1, length)

    def visible(self, length: int) -> Tensor:
        """What each of the 2 * length positions attends to; noisy half first."""
        block = torch.arange(length) // self.block
        mask = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
        mask[:length, :length] = block[:, None] == block
        mask[:length, length:] = block[:, None] > block
        mask[length:, length:] = block[:, None] >= block
        return mask

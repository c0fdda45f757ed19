"""The autoregressive objective: every token of the response from what is before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dllm.models.spec import AttentionKind
from dllm.training.batches import Batch, Objective


@dataclass(frozen=True)
class NextToken(Objective):
    attention: ClassVar[AttentionKind] = "causal"
    logit_shift: ClassVar[int] = 1

    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        """`tokens` int64 [rows, length], `prompt_lengths` int64 [rows]; nothing is hidden, the
        attention is causal and the row before a response token predicts it."""
        rows, length = tokens.shape
        reading = torch.zeros(rows, length, dtype=torch.bool)
        reading[:, :-1] = (torch.arange(length) >= prompt_lengths[:, None])[:, 1:]
        chosen = reading.flatten().nonzero().squeeze(1)
        return Batch(
            tokens=tokens,
            masked=chosen,
            targets=tokens.roll(-1, dims=1).flatten()[chosen],
            # The trainer divides by the rows.
            weights=torch.full((len(chosen),), rows / len(chosen)),
            visible=torch.ones(length, length, dtype=torch.bool).tril(),
        )

"""Verifiers of draft-and-verify methods: which drafts agree with what the rule makes of others."""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from dllm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Verifier:
    match: Literal["exact", "subset"]
    """A draft follows another one if it equals that one's target everywhere, or (`subset`) wherever
    the draft is decided."""
    max_batch: int | None
    """Canvases in one verification forward, all sequences together (>= 1); null = no limit."""

    def __post_init__(self) -> None:
        if self.max_batch is not None and self.max_batch < 1:
            raise ConfigError(f"sampler.verify.max_batch={self.max_batch} must be >= 1")

    def drafts(self, wanted: int, batch: int) -> int:
        """Drafts per sequence beyond its own canvas; says once where that is fewer than wanted."""
        if self.max_batch is None or wanted * batch <= self.max_batch:
            return wanted - 1
        allowed = max(1, self.max_batch // batch)
        warnings.warn(
            f"sampler.verify.max_batch={self.max_batch}: {allowed} canvases per sequence are "
            f"verified instead of draft_steps={wanted}",
            stacklevel=2,
        )
        return allowed - 1

    def longest_chain(
        self,
        drafts: Int[Tensor, "batch count rows"],
        targets: Int[Tensor, "batch count rows"],
        mask: int,
    ) -> Int[Tensor, "batch"]:
        """Index of the last draft reached from draft 0, always by the largest agreeing jump."""
        same = drafts[:, None] == targets[:, :, None]  # [batch, target, draft, rows]
        if self.match == "subset":
            same = same | (drafts[:, None] == mask)
        agree = same.all(dim=-1).cpu()
        best = torch.zeros(len(agree), dtype=torch.int64)
        number = torch.arange(agree.shape[1])
        for _ in range(agree.shape[1] - 1):
            reached = agree.gather(1, best[:, None, None].expand(-1, 1, agree.shape[2]))[:, 0]
            further = number.where(reached & (number > best[:, None]), best[:, None])
            best = further.amax(dim=1)
        return best.to(drafts.device)

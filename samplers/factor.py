"""Fast-dLLM factor (arXiv 2505.22618, later version): the bound tightens with the number committed.

Rule: rank the candidates of the block by confidence; rank 1 is always committed, rank r >= 2 as
long as confidence >= 1 - factor / (r + 1), and the first failure ends the walk. Official quirk, on
by default: if the only failing rank is the last one, it is committed all the same. Function default
factor 1; no factor result is printed in version 1 of the paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.metrics.bits import Budget, FactorBudget
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


@dataclass(frozen=True, kw_only=True)
class Factor(Sampler):
    factor: float
    """Larger commits more (> 0)."""
    last_rank_quirk: bool
    """Commit the last rank even when it alone fails, as the official code does."""

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ConfigError(f"sampler.factor={self.factor} must be > 0")

    def budget(self) -> Budget | None:
        """The quirk's tokens are below any floor."""
        return None if self.logits_transform or self.last_rank_quirk else FactorBudget(self.factor)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        order, passed, lone = self._ranks(score, view)
        return torch.zeros_like(passed).scatter_(1, order, passed | lone)

    def sure(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        """The ranks that pass, the first one only with confidence >= 1 - factor / 2."""
        order, passed, _ = self._ranks(score, view)
        chosen = torch.zeros_like(passed).scatter_(1, order, passed)
        return chosen & (score >= 1 - self.factor / 2)

    def marks(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Mapping[str, Bool[Tensor, "batch rows"]]:
        order, _, lone = self._ranks(score, view)
        return {"quirk": torch.zeros_like(lone).scatter_(1, order, lone)}

    def _ranks(
        self, score: Float[Tensor, "batch rows"], view: View
    ) -> tuple[Int[Tensor, "batch rows"], Bool[Tensor, "batch rows"], Bool[Tensor, "batch rows"]]:
        """Rows by rank; which ranks pass; the last rank where it alone fails and is committed."""
        count = view.candidates.sum(dim=-1, keepdim=True)
        ranked = score.masked_fill(~view.candidates, -torch.inf).sort(
            dim=-1, descending=True, stable=True
        )
        rank = torch.arange(1, score.shape[1] + 1, device=score.device)
        bound = 1 - self.factor / (rank + 1).to(score.dtype)
        bound = bound.where(rank > 1, -torch.inf)
        passed = (ranked.values >= bound).cummin(dim=-1).values & (rank <= count)
        missing = count - passed.sum(dim=-1, keepdim=True)
        lone = (rank == count) & (missing == 1) & ~passed
        return ranked.indices, passed, lone if self.last_rank_quirk else torch.zeros_like(lone)

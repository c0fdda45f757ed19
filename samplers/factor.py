"""Fast-dLLM factor (arXiv 2505.22618, later version): the bound tightens with the number committed.

Rule: rank the candidates of the block by confidence; rank 1 is always committed, rank r >= 2 as
long as confidence >= 1 - factor / (r + 1), and the first failure ends the walk. Official quirk, on by
default: if the only failing rank is the last one, it is committed all the same. Function default factor
1; no factor result is printed in version 1 of the paper. Section 3.1 of the confidence specification.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm import scores
from dllm.errors import ConfigError
from dllm.prediction import View
from dllm.sampler import Sampler
from dllm.state import SamplerState


@dataclass(frozen=True, kw_only=True)
class Factor(Sampler):
    factor: float
    """Larger commits more (> 0)."""
    last_rank_quirk: bool
    """Commit the last rank even when it alone fails, as the official code does."""

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ConfigError(f"sampler.factor={self.factor} must be > 0")

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        if score.shape[1] == 0:
            return view.candidates
        ranked = score.masked_fill(~view.candidates, -torch.inf).sort(
            dim=-1, descending=True, stable=True
        )
        rank = torch.arange(score.shape[1], device=score.device)  # rank r - 1
        bound = (1 - self.factor / (rank + 2)).to(score.dtype)
        bound[0] = -torch.inf
        passed = (ranked.values >= bound).cummin(dim=-1).values
        count = view.candidates.sum(dim=-1, keepdim=True)
        if self.last_rank_quirk:
            only_last_fails = passed.sum(dim=-1, keepdim=True) == count - 1
            passed = passed | only_last_fails
        passed = passed & (rank < count)
        return torch.zeros_like(view.candidates).scatter_(1, ranked.indices, passed)

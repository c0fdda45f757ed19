"""Filtered, tempered distributions: what Dream's and SDAR's codes sample and read confidences from.

In this order (`first: top_k`, SDAR's, changes the last two): divide by the temperature; top-p drops
every token that more than `top_p` of probability precedes (rank 1 and the first token beyond the
mass stay); top-k drops what is below the k-th largest. Confidences of the filtered distribution are
no probabilities of the model: with top_p 0.9 every top probability above 0.9 becomes exactly 1
(traps D3, D4), so thresholds on them mean something else. Section 2 of the confidence
specification.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dllm.errors import ConfigError
from dllm.plan import Need
from dllm.prediction import View
from dllm.state import SamplerState, StateField


@dataclass(frozen=True, kw_only=True)
class NucleusFilter:
    """A logits transform without memory; to sample from the result, combine with the Gumbel
    proposer at temperature 1."""

    temperature: float
    """Divides the logits (>= 0); 0 leaves them."""
    top_p: float | None
    """Mass that is kept, in (0, 1]; null or 1 = all."""
    top_k: int | None
    """Tokens that are kept (>= 1); null = all."""
    first: Literal["top_p", "top_k"]
    """Which filter the other one reads the probabilities after."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        prefix = "sampler.logits_transform"
        if self.temperature < 0:
            raise ConfigError(f"{prefix}.temperature={self.temperature} must be >= 0")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"{prefix}.top_p={self.top_p} is outside (0, 1]")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"{prefix}.top_k={self.top_k} must be >= 1")

    def fields(self) -> tuple[StateField, ...]:
        return ()

    def observe(self, view: View, state: SamplerState) -> None:
        """Nothing is remembered."""

    def apply(self, view: View, state: SamplerState) -> View:
        logits = view.logits
        if self.temperature:
            logits = logits / self.temperature
        filters = [self._nucleus, self._best]
        for keep in filters if self.first == "top_p" else reversed(filters):
            logits = keep(logits)
        return view if logits is view.logits else view.with_logits(logits)

    def _nucleus(self, logits: Tensor) -> Tensor:
        if self.top_p is None or self.top_p == 1:
            return logits
        return _within_mass(logits, self.top_p)

    def _best(self, logits: Tensor) -> Tensor:
        if self.top_k is None or self.top_k >= logits.shape[-1]:
            return logits
        kth = logits.topk(self.top_k, dim=-1).values[..., -1:]
        return logits.masked_fill(logits < kth, -torch.inf)


def _within_mass(
    logits: Float[Tensor, "batch rows vocab"], mass: float
) -> Float[Tensor, "batch rows vocab"]:
    ranked, order = logits.sort(dim=-1, descending=True)
    p = ranked.softmax(dim=-1)
    beyond = p.cumsum(dim=-1) > mass
    # Shifted by one: the token that crosses the mass is kept, and so is rank 1.
    dropped = beyond.roll(1, dims=-1)
    dropped[..., 0] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter_(-1, order, dropped), -torch.inf)

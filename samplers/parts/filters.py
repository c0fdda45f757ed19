"""Filtered, tempered distributions: what Dream's and SDAR's codes sample and read confidences from.

In this order (`first: top_k`, SDAR's, changes the last two): divide by the temperature; top-p drops
every token that more than `top_p` of probability precedes (rank 1 and the first token beyond the
mass stay); top-k drops what is below the k-th largest. Confidences of the filtered distribution are
no probabilities of the model: with top_p 0.9 every top probability above 0.9 becomes exactly 1,
so that thresholds on them mean something else.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step.plan import Need
from dllm.step.prediction import View
from dllm.step.state import SamplerState, StateField


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
        if self.first == "top_p":
            logits = best_tokens(within_mass(logits, self.top_p), self.top_k)
        else:
            logits = within_mass(best_tokens(logits, self.top_k), self.top_p)
        return view if logits is view.logits else view.with_logits(logits)


def best_tokens(
    logits: Float[Tensor, "batch rows vocab"], count: int | None
) -> Float[Tensor, "batch rows vocab"]:
    """The `count` largest logits of each row, and those equal to the last of them; None = all."""
    if count is None or count >= logits.shape[-1]:
        return logits
    least = logits.topk(count, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def within_mass(
    logits: Float[Tensor, "batch rows vocab"], mass: float | None
) -> Float[Tensor, "batch rows vocab"]:
    """The most likely tokens up to the one that crosses `mass`, rank 1 always; None or 1 = all."""
    if mass is None or mass == 1:
        return logits
    ranked, order = logits.sort(dim=-1, descending=True)
    beyond = ranked.softmax(dim=-1).cumsum(dim=-1) > mass
    # Shifted by one: the token that crosses the mass is kept, and so is rank 1.
    dropped = beyond.roll(1, dims=-1)
    dropped[..., 0] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter_(-1, order, dropped), -torch.inf)

"""Proposers: the token each position would get."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step.prediction import View
from samplers.parts.filters import best_tokens, within_mass


@dataclass(frozen=True)
class Greedy:
    """The most likely token; the lowest id on exact ties."""

    def propose(self, view: View) -> Int[Tensor, "batch rows"]:
        return view.top[1]

    def distribution(self, logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
        """Probability of each token to be proposed."""
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()


@dataclass(frozen=True, kw_only=True)
class Gumbel:
    """A sample of softmax(logits / temperature), drawn as LLaDA does: the arg-max of exp(l) / (-ln
    u)^T in float64, u ~ U[0, 1) per position and token. Confidence is still read from the logits
    without temperature."""

    temperature: float
    """> 0; for 0 use the greedy proposer."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(
                f"sampler.proposer.temperature={self.temperature} must be > 0 "
                "(greedy: sampler/proposer=greedy)"
            )

    def propose(self, view: View) -> Int[Tensor, "batch rows"]:
        logits = view.logits.double()
        noise = torch.ones_like(logits)
        for row, generator in enumerate(view.canvas.generators):
            # Only the sequence's own rows are drawn: padding would tie its stream to the batch.
            own = view.positions[row] >= 0
            noise[row, own] = torch.rand(
                (int(own.sum()), logits.shape[-1]),
                generator=generator,
                dtype=torch.float64,
                device=logits.device,
            )
        # Same arg-max in log space, where exp(l) can't overflow.
        return (logits - self.temperature * (-noise.log()).log()).argmax(dim=-1)

    def distribution(self, logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
        """Probability of each token to be proposed."""
        return (logits.double() / self.temperature).softmax(dim=-1)


@dataclass(frozen=True)
class Categorical:
    """A sample of the softmax of the logits, as `torch.multinomial` draws it from each sequence's
    generator."""

    def propose(self, view: View) -> Int[Tensor, "batch rows"]:
        drawn = view.top[1].clone()
        p = view.logits.softmax(dim=-1, dtype=torch.float32)
        for row, generator in enumerate(view.canvas.generators):
            # A row that a cache has left out has no distribution.
            own = (view.positions[row] >= 0) & ~p[row].isnan().any(dim=-1)
            drawn[row, own] = torch.multinomial(p[row, own], 1, generator=generator)[:, 0]
        return drawn

    def distribution(self, logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
        """Probability of each token to be proposed."""
        return logits.double().softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class FilteredGumbel(Gumbel):
    """A sample of what top-k and then top-p leave of the untempered logits, tempered afterwards
    (WeDLM's engine). Confidence and entropy are still read from the unfiltered logits."""

    top_k: int | None
    """Tokens that are kept (>= 1); null = all."""
    top_p: float | None
    """Mass of these that is kept, in (0, 1]; the token that crosses it stays; null or 1 = all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"sampler.proposer.top_k={self.top_k} must be >= 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"sampler.proposer.top_p={self.top_p} is outside (0, 1]")

    def propose(self, view: View) -> Int[Tensor, "batch rows"]:
        return super().propose(view.with_logits(self._filtered(view.logits)))

    def distribution(self, logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
        return super().distribution(self._filtered(logits))

    def _filtered(self, logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
        return within_mass(best_tokens(logits, self.top_k), self.top_p)

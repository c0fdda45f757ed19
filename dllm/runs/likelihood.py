"""How likely a model finds a given answer: a bound by masking, or the exact value.

Of a bidirectional model (LLaDA, arXiv 2502.09992, appendix B.5; Dream likewise) only a bound can be
had: mask k of the answer's n tokens, k uniform on 1..n and the positions uniform, sum the log
probabilities of the masked tokens, times n / k; the mean over draws bounds log p(answer | prompt)
from below. k runs through 1..n in equal steps from a random start, which lowers the variance. A
block-causal model is bounded block by block, each after its clean past (block diffusion's
objective); a causal one is exact, token by token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import NO_MASK
from dllm.models.transformer import Transformer


@dataclass(frozen=True)
class Likelihood:
    """log p(answer | prompt) in nats."""

    value: float
    error: float
    """Standard error of the estimate; 0 = exact."""


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Estimates with a fixed number of draws and a generator per answer: an estimate depends on
    nothing else that is asked."""

    model: Transformer
    draws: int
    """Maskings per span (128 in LLaDA's evaluation)."""
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise ValueError(f"draws={self.draws} must be >= 2: fewer have no standard error")
        if self.model.spec.noise != "mask":
            raise ConfigError(
                f"likelihoods are estimated by masking: the {self.model.spec.family} model has no "
                "mask token"
            )

    @torch.inference_mode()
    def of(self, prompt: Sequence[int], answer: Sequence[int]) -> Likelihood:
        """`prompt` holds one token at least."""
        tokens = torch.tensor([*prompt, *answer], device=self.model.device)
        generator = torch.Generator().manual_seed(self.seed)
        value = variance = 0.0
        for start, end in self._spans(len(prompt), len(tokens)):
            estimates = self._estimates(tokens[:end], start, generator)
            value += float(estimates.mean())
            if len(estimates) > 1:
                variance += float(estimates.var()) / len(estimates)
        return Likelihood(value, sqrt(variance))

    def _spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of the answer that are predicted together, given what lies before."""
        spec = self.model.spec
        size = {"full": end, "causal": 1, "block_causal": spec.block_size}[spec.attention]
        assert size is not None
        while start < end:
            stop = min(end, (start // size + 1) * size)
            yield start, stop
            start = stop

    def _estimates(self, tokens: Tensor, start: int, generator: torch.Generator) -> Tensor:
        """One estimate per draw of the span from `start` to the end; a single token needs one."""
        length = len(tokens) - start
        draws = self.draws if length > 1 else 1
        counts = stratified(length, draws, generator)
        order = torch.rand(draws, length, generator=generator).argsort(dim=1)
        masked = torch.zeros(draws, length, dtype=torch.bool)
        masked.scatter_(1, order, torch.arange(length)[None] < counts[:, None])
        scores = [self._scores(tokens, start, part) for part in masked.split(self.batch_size)]
        return torch.cat(scores).double() * length / counts

    def _scores(self, tokens: Tensor, start: int, masked: Tensor) -> Tensor:
        """Summed log probabilities of the masked tokens, one number per row of `masked`."""
        spec, rows = self.model.spec, len(masked)
        fed = tokens.repeat(rows, 1)
        hidden_tokens = torch.zeros_like(fed, dtype=torch.bool)
        hidden_tokens[:, start:] = masked.to(fed.device)
        fed[hidden_tokens] = spec.mask_id if spec.mask_id != NO_MASK else 0
        states = self.model.hidden(fed, mask=self._visible(len(tokens)))
        row, at = hidden_tokens.nonzero(as_tuple=True)
        logits = self.model.logits(states[row, at - spec.logit_shift])
        found = logits.float().log_softmax(-1).gather(1, tokens[at][:, None])[:, 0]
        return torch.zeros(rows, device=fed.device).index_add_(0, row, found).cpu()

    def _visible(self, length: int) -> Tensor | None:
        spec = self.model.spec
        if spec.attention == "full":
            return None
        size = spec.block_size if spec.attention == "block_causal" else 1
        assert size is not None
        block = torch.arange(length, device=self.model.device) // size
        return (block[:, None] >= block)[None, None]


def stratified(length: int, draws: int, generator: torch.Generator) -> Tensor:
    """How many of `length` tokens each draw masks: equal steps through 1..length, int64 [draws]."""
    first = int(torch.randint(length, (1,), generator=generator))
    steps = (torch.arange(draws, dtype=torch.float64) * length / draws).long()
    return (first + steps) % length + 1

"""Structural inference of Dystruct (reconstruction): window length and block borders, jointly.

Length ~ Poisson(lambda), partition ~ Chinese restaurant process over contiguous blocks, instability
normal within a block and low-confidence beyond the window; one change-point recursion gives the
evidence of every length and the best partition of each. `inference: map` takes the most probable
length and its best partition; `sample` draws both from their posteriors, the partition backwards
through the recursion, with the sequence's own generator. Formulas and constants are a
reconstruction [inferred]; what is known of the paper stands in `samplers.dystruct.sampler`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import inf, lgamma, log
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from samplers.parts.checks import not_below


Rows = Float[np.ndarray, "positions"]
ENTROPY_SCALE = log(32)
TIE = 1e-9


@dataclass(frozen=True)
class Signals:
    """What the logits of each position say."""

    confidence: Float[np.ndarray, "batch rows"]
    instability: Float[np.ndarray, "batch rows"]
    """u in [0, 1]: half entropy over ln 32, half 1 - confidence."""
    boundary: Float[np.ndarray, "batch rows"]
    """b: probability that a unit of text ends here, by a delimiter or an end token."""
    end: Float[np.ndarray, "batch rows"]
    """e: probability of an end token."""

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, "batch rows vocab"],
        delimiter_ids: list[int],
        eos_ids: tuple[int, ...],
        mask_id: int,
    ) -> "Signals":
        logits = logits.double().index_fill(
            -1, torch.tensor([mask_id], device=logits.device), -torch.inf
        )
        p = logits.softmax(dim=-1)
        c = p.amax(dim=-1)
        entropy = -torch.special.xlogy(p, p).sum(dim=-1)
        u = 0.5 * (entropy / ENTROPY_SCALE).clamp(max=1) + 0.5 * (1 - c)
        d, e = (p[..., list(ids)].sum(dim=-1) for ids in (delimiter_ids, eos_ids))
        b = 1 - (1 - d) * (1 - e)
        return cls(*(value.cpu().numpy() for value in (c, u, b, e)))


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Priors and likelihoods; `window` infers length and blocks of one look-ahead region."""

    length_mode: Literal["posterior", "prior", "all"]
    """Length by all evidence, by the Poisson term alone, or the whole look-ahead."""
    inference: Literal["map", "sample"]
    """The most probable structure, or a draw from its posterior."""
    concentration: float
    """alpha of the restaurant process (> 0): larger makes shorter blocks."""
    min_block: int
    max_block: int
    """Bounds of a block's length."""
    boundary_weight: float
    """gamma_b: weight of the predicted borders; 0 = none."""
    boundary_prior: float
    """b_0: boundary mass that speaks neither for nor against, in (0, 1)."""
    instability_weight: float
    """eta_u: weight of the instability's fit; 0 = none."""
    end_weight: float
    """eta_e: weight against running past a likely end; 0 = none."""
    block_mean: float
    block_mean_spread: float
    block_spread: float
    """Instability of a block: mean ~ N(block_mean, block_mean_spread), values block_spread
    around."""
    floor_mean: float
    floor_spread: float
    """Instability beyond the window."""
    clip: float
    """delta: probabilities are kept this far from 0 and 1."""

    def __post_init__(self) -> None:
        not_below("structure.min_block", self.min_block, 1)
        not_below("structure.max_block", self.max_block, self.min_block)
        for name in ("concentration", "block_spread", "floor_spread"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"sampler.structure.{name}={getattr(self, name)} must be > 0")
        for name, high in (("boundary_prior", 1), ("clip", 0.5)):
            if not 0 < getattr(self, name) < high:
                raise ConfigError(
                    f"sampler.structure.{name}={getattr(self, name)} is outside (0, {high})"
                )

    @cached_property
    def log_prior(self) -> Rows:
        """lp(n) at index n - min_block: a block has exactly n positions."""
        m = np.arange(self.min_block, self.max_block)
        kept = np.concatenate(([0.0], np.cumsum(np.log(m / (m + self.concentration)))))
        closed = np.log(self.concentration / (m + self.concentration))
        return kept + np.concatenate((closed, [0.0]))

    def boundary_evidence(self, b: Rows) -> Rows:
        """g: weighted log-odds of the boundary mass."""
        b = np.clip(b, self.clip, 1 - self.clip)
        prior = log(self.boundary_prior / (1 - self.boundary_prior))
        return self.boundary_weight * (np.log(b / (1 - b)) - prior)

    def _last_blocks(self, u: Rows, b: Rows) -> Callable[[int], tuple[np.ndarray, Rows]]:
        """j -> possible lengths n of the block that ends at j, and lp(n) + s + g_j of each."""
        first = np.concatenate(([0.0], np.cumsum(u)))
        square = np.concatenate(([0.0], np.cumsum(u * u)))
        floor = np.concatenate(([0.0], np.cumsum(_normal(u, self.floor_mean, self.floor_spread))))
        g = self.boundary_evidence(b)

        def ending_at(j: int) -> tuple[np.ndarray, Rows]:
            n = np.arange(self.min_block, min(self.max_block, j) + 1)
            sums = first[j] - first[j - n], square[j] - square[j - n]
            fit = self._block_fit(n, *sums) - (floor[j] - floor[j - n])
            return n, self.log_prior[: len(n)] + self.instability_weight * fit + g[j - 1]

        return ending_at

    def recursion(self, u: Rows, b: Rows) -> tuple[Rows, Int[np.ndarray, "positions"]]:
        """F(0..R), the evidence of all partitions of the first j positions, and the length of the
        last block of the best one (ties: the longer; 0 = j can't be partitioned)."""
        count = len(u)
        ending_at = self._last_blocks(u, b)
        evidence, best = np.full(count + 1, -inf), np.full(count + 1, -inf)
        last = np.zeros(count + 1, dtype=np.int64)
        evidence[0] = best[0] = 0
        for j in range(self.min_block, count + 1):
            n, terms = ending_at(j)
            total = evidence[j - n] + terms
            if total.max() == -inf:
                continue
            evidence[j] = np.logaddexp.reduce(total)
            values = best[j - n] + terms
            best[j] = values.max()
            last[j] = n[np.nonzero(values >= best[j] - TIE)[0][-1]]
        return evidence, last

    def _block_fit(self, n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Log-density of a block's instabilities, its mean integrated out."""
        variance, mean_variance = self.block_spread**2, self.block_mean_spread**2
        mean = total / n
        scatter = squares - n * mean**2
        return (
            -n / 2 * np.log(2 * np.pi * variance)
            - 0.5 * np.log(1 + n * mean_variance / variance)
            - scatter / (2 * variance)
            - n * (mean - self.block_mean) ** 2 / (2 * (variance + n * mean_variance))
        )

    def log_posterior(self, evidence: Rows, e: Rows, expected: float) -> Rows:
        """Of the lengths 1..R, up to a constant; `expected` is the Poisson parameter."""
        alive = np.log1p(-np.minimum(e, 1 - self.clip))
        survival = np.concatenate(([0.0], np.cumsum(alive)[:-1]))
        return self._poisson(len(e), expected) + evidence[1:] + self.end_weight * survival

    def _poisson(self, count: int, expected: float) -> Rows:
        length = np.arange(1, count + 1)
        return length * log(expected) - expected - np.array([lgamma(n + 1) for n in length])

    def length(self, u: Rows, b: Rows, e: Rows, expected: float, generator: torch.Generator) -> int:
        """Positions of the window; the look-ahead bounds what is expected of it, too."""
        count = len(u)
        expected = min(expected, count)
        if self.length_mode == "all":
            return count
        evidence, _ = self.recursion(u, b)
        reachable = evidence[1:] > -inf
        if not reachable.any():
            return count
        if self.length_mode == "posterior":
            score = self.log_posterior(evidence, e, expected)
        else:
            score = np.where(reachable, self._poisson(count, expected), -inf)
        if self.inference == "sample":
            return _draw(score, generator) + 1
        # Integer expectations make two lengths equally likely: the shorter one.
        return int((score >= score.max() - TIE).argmax()) + 1

    def partition(self, u: Rows, b: Rows, length: int, generator: torch.Generator) -> list[int]:
        """Lengths of the blocks of a window of the first `length` positions, left to right; what
        no partition reaches is a block of its own."""
        evidence, last = self.recursion(u[:length], b[:length])
        ending_at = self._last_blocks(u[:length], b[:length])
        covered = int((evidence > -inf).nonzero()[0][-1])
        blocks = [length - covered] if covered < length else []
        rest = covered
        while rest:
            if self.inference == "sample":
                n, terms = ending_at(rest)
                size = int(n[_draw(evidence[rest - n] + terms, generator)])
            else:
                size = int(last[rest])
            blocks.insert(0, size)
            rest -= size
        return blocks

    def window(
        self, u: Rows, b: Rows, e: Rows, expected: float, generator: torch.Generator
    ) -> list[int]:
        """Lengths of the window's blocks; their sum is the window's length."""
        return self.partition(u, b, self.length(u, b, e, expected, generator), generator)


def _draw(score: Rows, generator: torch.Generator) -> int:
    """An index with probability ~ exp(score)."""
    share = torch.as_tensor(score).softmax(dim=0).to(generator.device)
    return int(torch.multinomial(share, 1, generator=generator))


def _normal(x: Rows, mean: float, spread: float) -> Rows:
    return -0.5 * np.log(2 * np.pi * spread**2) - (x - mean) ** 2 / (2 * spread**2)

"""From bits to rounds: how much one round of a rule can tell, and how many rounds it needs.

"From Bits to Rounds" (arXiv 2511.21103) states that decoders which commit only what they are sure
of gain few bits per round; constants and conditions of its theorem could not be read. The budgets
here are elementary and our own: a token committed with probability p carries -log2 p bits, so that
a rule which asks for a confidence of at least `floor` bounds what one of its rounds can carry. A
token below the floor was committed alone, because nothing else qualified, and cost a round.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, log2
from typing import Protocol


LIMITS = (
    "The bound is about rules that commit what they are sure of, not about the text: independent "
    "uncertain tokens can be drawn in one round, whatever their bits.",
    "An entropy budget per round needs about H / epsilon rounds for a divergence of epsilon "
    "(arXiv 2603.22248): that is the companion from above.",
    "Tokens behind the answer carry next to no bits and count as rounds: see the effective tokens.",
    "A masked model is no consistent joint distribution: the bits are those of the path taken. "
    "Probabilities are raw softmax values in float32; with classifier-free guidance, those before "
    "it.",
)
"""To be read with every figure."""

_LEAST = 2.0**-149
"""Smallest float32 above 0: what underflowed counts as this."""


def bits(probability: float) -> float:
    """Information of a token that had this probability."""
    return -log2(max(probability, _LEAST))


class Budget(Protocol):
    """What a rule implies about the rounds in which nothing was forced."""

    @property
    def floor(self) -> float:
        """Least probability of a token that was not committed for want of a better one."""
        ...

    def bits(self, most: int) -> float:
        """Bound on the bits of such a round, of up to `most` tokens."""
        ...


@dataclass(frozen=True)
class FloorBudget:
    """Every token of a round has a confidence of at least `floor`."""

    floor: float

    def bits(self, most: int) -> float:
        return most * bits(self.floor) if self.floor > 0 else inf


@dataclass(frozen=True)
class FactorBudget:
    """Fast-dLLM's factor rule: each of the n tokens of a round has more than 1 - factor / (n + 1).

    For factor 1 a round stays below 1 nat, however long the block is.
    """

    factor: float

    @property
    def floor(self) -> float:
        return 1 - self.factor / 2

    def bits(self, most: int) -> float:
        if self.floor <= 0:
            return inf
        return max(n * -log2(1 - self.factor / (n + 1)) for n in range(1, most + 1))


@dataclass(frozen=True)
class Round:
    """One decision."""

    block: int
    most: int
    """Positions that it could have committed, had all of them qualified."""
    probabilities: Sequence[float]
    """Of its tokens."""

    @property
    def bits(self) -> float:
        return sum(map(bits, self.probabilities))


@dataclass(frozen=True)
class Bound:
    """R >= forced + the sum over the blocks of ceil(bits of the other rounds / budget)."""

    forced: int
    """Rounds with a token below the rule's floor."""
    forced_bits: float
    sure_bits: float
    rounds: int

    @classmethod
    def of(cls, rounds: Sequence[Round], budget: Budget) -> "Bound":
        forced, blocks = [], defaultdict(list)
        for one in rounds:
            # Rules compare in float64, or in less: a float32 may end on the other side.
            below = any(p < budget.floor - 1e-6 for p in one.probabilities)
            (forced if below else blocks[one.block]).append(one)
        needed, sure = 0, 0.0
        for of_block in blocks.values():
            carried = sum(one.bits for one in of_block)
            allowed = budget.bits(max(one.most for one in of_block))
            # Sums of floats may end a hair above a whole number of budgets.
            needed += ceil(carried / allowed - 1e-9) if allowed else 0
            sure += carried
        return cls(len(forced), sum(one.bits for one in forced), sure, len(forced) + max(needed, 0))

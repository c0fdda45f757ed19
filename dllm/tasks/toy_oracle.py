"""Distributions over short texts that are small enough to be known exactly.

A `ToyOracle` lists every text with its weight; what a perfect model would predict for any part of a
text follows by counting. It serves in place of a model wherever a decoding rule is to be judged
apart from a model's errors: what the rule still gets wrong on `shuffle` or `replace_random`
(ParallelBench, arXiv 2510.04767, section 3) is the price of parallelism alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import permutations, product
from math import log2
from string import ascii_uppercase

import numpy as np
from jaxtyping import Float, Int


UNKNOWN = "."
"""A character of a text that is not decided yet."""


class ToyOracle:
    """Texts of one length, one character per token, with their weights (> 0, any sum)."""

    def __init__(self, weights: Mapping[str, float]):
        self.weights = {text: weight / sum(weights.values()) for text, weight in weights.items()}
        self.alphabet = "".join(sorted({character for text in weights for character in text}))
        """The values in the order of their ids."""
        (self.length,) = {len(text) for text in weights}

    @classmethod
    def shuffle(cls, items: int) -> "ToyOracle":
        """All orders of the first letters, equally likely."""
        return cls({"".join(p): 1.0 for p in permutations(ascii_uppercase[:items])})

    @classmethod
    def replace_random(cls, items: int) -> "ToyOracle":
        """The first letters in order, one of them replaced by the next letter but one."""
        names, new = ascii_uppercase[:items], ascii_uppercase[items + 1]
        return cls({names[:i] + new + names[i + 1 :]: 1.0 for i in range(items)})

    @classmethod
    def independent(cls, values: Sequence[Mapping[str, float]]) -> "ToyOracle":
        """Positions that know nothing of each other: per position, value -> weight."""
        return cls(
            {
                "".join(value for value, _ in one): float(np.prod([weight for _, weight in one]))
                for one in product(*(position.items() for position in values))
            }
        )

    @cached_property
    def _ids(self) -> Int[np.ndarray, "texts length"]:
        return np.array([[self.alphabet.index(c) for c in text] for text in self.weights])

    def conditionals(self, known: str) -> Float[np.ndarray, "length values"]:
        """Probability of each value at each position of a text of which `known` is decided.

        What contradicts every text tells nothing: the unconditional probabilities.
        """
        weight = np.array([*self.weights.values()])
        fits = np.array([_agrees(text, known) for text in self.weights])
        weight = weight * fits if fits.any() else weight
        table = np.zeros((self.length, len(self.alphabet)))
        for position in range(self.length):
            np.add.at(table[position], self._ids[:, position], weight)
        return table / weight.sum()

    def entropy(self, positions: Iterable[int]) -> float:
        """Joint entropy of some positions, in bits."""
        return -sum(p * log2(p) for p in self._marginal(positions).values())

    def total_correlation(self, positions: Sequence[int], given: Sequence[int] = ()) -> float:
        """How many bits the positions tell about each other once `given` is known, on average: the
        least divergence of a step that draws them from their own probabilities."""
        known = self.entropy(given)
        alone = sum(self.entropy((*given, position)) - known for position in positions)
        return alone - (self.entropy((*given, *positions)) - known)

    def divergence(self, parts: Sequence[Sequence[int]]) -> float:
        """D_KL in bits of decoding `parts` one after the other with exact probabilities
        (ParallelBench, theorem 1)."""
        before = [[i for part in parts[:n] for i in part] for n in range(len(parts))]
        return sum(map(self.total_correlation, parts, before))

    def _marginal(self, positions: Iterable[int]) -> dict[tuple[str, ...], float]:
        chosen, found = list(positions), {}
        for text, weight in self.weights.items():
            key = tuple(text[i] for i in chosen)
            found[key] = found.get(key, 0.0) + weight
        return found


def _agrees(text: str, known: str) -> bool:
    return all(k in (UNKNOWN, c) for c, k in zip(text, known, strict=True))

"""LAVE's test of one proposed token (arXiv 2602.00612; the authors' code is followed: a beam over
the masks' likeliest tokens, pruned where tokens are decided, scored by the sum of probabilities).

A proposal stands if some filling of the masks to its left, taken from the same forward's
distributions, makes a viable prefix. Acceptance is a certificate, rejection only says that none of
the few fillings tried is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np


class Parser(Protocol):
    def viable(self, prefix: Sequence[int]) -> bool: ...

    def accepting(self, prefix: Sequence[int]) -> bool: ...

    def allowed(self, prefix: Sequence[int]) -> np.ndarray: ...


@dataclass(frozen=True)
class Lookahead:
    parser: Parser
    mask_id: int
    ends: frozenset[int]
    top_k: int
    """Tokens tried at a mask."""
    best: int
    """Fillings kept for their score."""
    others: int
    """Further ones kept at random."""

    def verified(
        self,
        ids: Sequence[int],
        block_end: int,
        probabilities: Mapping[int, np.ndarray],
        random: Random,
    ) -> list[int] | None:
        """A filling that proves the tokens up to `block_end`, None if none is found.

        `ids` is the answer so far with the proposed token, `probabilities` are those of each masked
        position.
        """
        done = next((i for i, token in enumerate(ids) if self._open(token)), len(ids))
        filled = [i for i in range(block_end) if not self._open(ids[i])]
        last = max(filled, default=-1)
        end = next((i for i in range(block_end) if ids[i] in self.ends), None)
        if end is not None and end < last:
            return None
        beams: list[tuple[list[int], float]] = [(list(ids), 0.0)]
        for q in range(min(done, last + 1), last + 1):
            if ids[q] == self.mask_id:
                beams = self._expanded(beams, q, probabilities[q], random)
            else:
                beams = [beam for beam in beams if self.parser.viable(beam[0][: q + 1])]
                if not beams:
                    return None
        if last >= 0 and done > last and not self.parser.viable(ids[: last + 1]):
            return None
        found = max(beams, key=lambda beam: beam[1])[0]  # the first of equals
        if end is None:
            return found
        return self._ended(found, last, end, probabilities)

    def _open(self, token: int) -> bool:
        return token == self.mask_id or token in self.ends

    def _expanded(
        self, beams: list[tuple[list[int], float]], q: int, p: np.ndarray, random: Random
    ) -> list[tuple[list[int], float]]:
        likeliest = np.argsort(-p, kind="stable")[: self.top_k].tolist()
        found = [
            ([*ids[:q], token, *ids[q + 1 :]], score + float(p[token]))
            for ids, score in beams
            for token in likeliest
        ]
        order = sorted(range(len(found)), key=lambda i: -found[i][1])
        kept, rest = order[: self.best], sorted(order[self.best :])
        kept += random.sample(rest, min(self.others, len(rest)))
        return [found[i] for i in kept]

    def _ended(
        self, ids: list[int], last: int, end: int, probabilities: Mapping[int, np.ndarray]
    ) -> list[int] | None:
        """The text must be finishable, token after likeliest token, before the proposed end."""
        token = ids[end]
        prefix = ids[: last + 1]
        for q in range(last + 1, end):
            if self.parser.accepting(prefix):
                break
            allowed = self.parser.allowed(prefix)
            p = probabilities[q][: len(allowed)] * allowed[: len(probabilities[q])]
            p[[self.mask_id, *self.ends]] = 0
            if p.max() <= 1e-9:
                return None
            prefix = [*prefix, int(p.argmax())]
        if not self.parser.accepting(prefix):
            return None
        return [*prefix, *[token] * (len(ids) - len(prefix))]

"""Chains of additions and subtractions, one written step per operation and a final `#### nn`.

Results have two digits, terms as many as the largest, and a result is written once: it stands at
fixed distances from what it is computed from, and no copy of it can be read in its place.
"""

from __future__ import annotations

from random import Random

from dllm.tasks.base import GeneratedTask, Sample


LARGEST = 99  # every intermediate result stays in 0..99
MOST_TERMS = 16  # a canvas of 128 holds the steps


class Arithmetic(GeneratedTask):
    """`12+7-4` asks for `12+7=19`, `-4=15`, `#### 15` on lines of their own."""

    def __init__(self, min_terms: int = 2, max_terms: int = 12, largest_term: int = 9) -> None:
        if not 2 <= min_terms <= max_terms <= MOST_TERMS:
            raise ValueError(f"terms {min_terms} to {max_terms}: must lie in 2 to {MOST_TERMS}")
        if not 1 <= largest_term <= LARGEST // 2 + 1:
            raise ValueError(f"largest_term={largest_term} is outside 1..{LARGEST // 2 + 1}")
        self.kinds = ("arithmetic",)
        self.min_terms, self.max_terms, self.largest_term = min_terms, max_terms, largest_term
        # small terms more often, each in inverse proportion: a result then tells something of each
        # of its digits alone, without which a model sees no reason to look at two at once
        self._terms = range(1, largest_term + 1)
        self._weights = [1 / term for term in self._terms]

    def draw(self, kind: str, rng: Random) -> Sample:
        value, width = rng.randint(0, LARGEST), len(str(self.largest_term))
        prompt, lines = f"{value:02}", []
        for number in range(rng.randint(self.min_terms, self.max_terms) - 1):
            (term,) = rng.choices(self._terms, self._weights)
            # a term of at most 50 can always be added or subtracted
            sign = rng.choice([s for s in (1, -1) if 0 <= value + s * term <= LARGEST])
            step = f"{'+' if sign > 0 else '-'}{term:0{width}}"
            value += sign * term
            lines.append(f"{'' if number else prompt}{step}={value:02}")
            prompt += step
        return Sample.of(kind, prompt, "\n".join([*lines, f"#### {value:02}"]), value=value)

    def grade(self, sample: Sample, text: str) -> bool:
        """The steps are determined by the question, so all of them must be right."""
        return text.strip() == sample.answer

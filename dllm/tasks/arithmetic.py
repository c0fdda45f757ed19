"""Chains of additions and subtractions, one written step per operation and a final `#### n`."""

from __future__ import annotations

from random import Random

from dllm.tasks.base import GeneratedTask, Sample


LARGEST = 99  # every intermediate result stays in 0..99, so a step is at most nine tokens


class Arithmetic(GeneratedTask):
    """`12+7-4` asks for `12+7=19`, `19-4=15`, `#### 15` on lines of their own."""

    def __init__(self, min_terms: int = 2, max_terms: int = 4, largest_term: int = 50) -> None:
        if not 2 <= min_terms <= max_terms <= 4:
            raise ValueError(f"terms {min_terms} to {max_terms}: must lie in 2 to 4")
        if not 2 <= largest_term <= LARGEST // 2 + 1:
            raise ValueError(f"largest_term={largest_term} is outside 2..{LARGEST // 2 + 1}")
        self.kinds = ("arithmetic",)
        self.min_terms, self.max_terms, self.largest_term = min_terms, max_terms, largest_term

    def draw(self, kind: str, rng: Random) -> Sample:
        value = rng.randint(1, self.largest_term)
        prompt, lines = str(value), []
        for _ in range(rng.randint(self.min_terms, self.max_terms) - 1):
            term = rng.randint(1, self.largest_term)
            legal = [s for s in (1, -1) if 0 <= value + s * term <= LARGEST]
            while not legal:  # e.g. 30 with term 80: neither sum nor difference stays in range
                term = rng.randint(1, self.largest_term)
                legal = [s for s in (1, -1) if 0 <= value + s * term <= LARGEST]
            sign = rng.choice(legal)
            step = f"{'+' if sign > 0 else '-'}{term}"
            lines.append(f"{value}{step}={value + sign * term}")
            prompt += step
            value += sign * term
        return Sample.of(kind, prompt, "\n".join([*lines, f"#### {value}"]), value=value)

    def grade(self, sample: Sample, text: str) -> bool:
        """The steps are determined by the question, so all of them must be right."""
        return text.strip() == sample.answer

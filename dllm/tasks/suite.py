"""Several tasks as one; the embedded suite is what the shipped models are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from dllm.tasks.arithmetic import Arithmetic
from dllm.tasks.base import GeneratedTask, Sample, chosen
from dllm.tasks.extraction import JsonExtraction
from dllm.tasks.latin import LatinSquare
from dllm.tasks.listops import ListOperations


class Mixture(GeneratedTask):
    """All kinds of the given tasks in equal numbers; `kinds` selects among them."""

    def __init__(self, tasks: Sequence[GeneratedTask], kinds: Sequence[str] | None = None) -> None:
        self._owner: dict[str, GeneratedTask] = {}
        for task in tasks:
            for kind in task.kinds:
                if kind in self._owner:
                    raise ValueError(f"kind {kind} is in two of the mixed tasks")
                self._owner[kind] = task
        self.kinds = chosen(kinds, tuple(self._owner))

    def draw(self, kind: str, rng: Random) -> Sample:
        return self._owner[kind].draw(kind, rng)

    def grade(self, sample: Sample, text: str) -> bool:
        return self._owner[sample.task].grade(sample, text)


class EmbeddedSuite(Mixture):
    """The eleven kinds of the embedded benchmark: operations on lists of `min_items` to `max_items`
    names, sums of `min_terms` to `max_terms` terms up to `largest_term`, JSON, and squares."""

    def __init__(
        self,
        kinds: Sequence[str] | None = None,
        min_items: int = 3,
        max_items: int = 15,
        min_terms: int = 2,
        max_terms: int = 12,
        largest_term: int = 9,
    ) -> None:
        lists = ListOperations(min_items=min_items, max_items=max_items)
        arithmetic = Arithmetic(min_terms, max_terms, largest_term)
        super().__init__([lists, arithmetic, JsonExtraction(), LatinSquare()], kinds)

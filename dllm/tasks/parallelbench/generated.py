"""ParallelBench's waiting lines drawn anew, with names and prompts of our own.

The procedure is the benchmark's (it makes its published files again from its own name lists, which
have no licence and are not here); names, and so all data, are free.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from random import Random
from typing import Any

from dllm.tasks.base import Grade, Sample, Split, Task, chosen
from dllm.tasks.parallelbench.metrics import METRICS
from dllm.tasks.public import identified
from dllm.tasks.rows import Row
from dllm.tasks.words import LAST_NAMES, NAMES


@dataclass(frozen=True)
class Operation:
    """One kind of waiting line."""

    metric: str
    prompt: str
    seeded_as: str | None = None
    """Name at the time of its creation, from which its seed was made; None = its own."""


def _asked(request: str) -> str:
    return f"These people wait in line:\n{{context}}\n{request} Answer with the final list only."


OPERATIONS = {
    "copy": Operation("list_match_score", _asked("Copy the list.")),
    "reverse": Operation("list_match_score", _asked("Reverse the list.")),
    "sort": Operation("list_match_score", _asked("Sort the list by the whole names.")),
    "shuffle": Operation("list_shuffle_score", _asked("Put the list in any other order.")),
    "insert_index": Operation(
        "list_match_score",
        _asked("Insert {word} so that its position, counted from 0, is {index}."),
        "insert_index_list",
    ),
    "insert_random": Operation(
        "list_random_insert_score", _asked("Insert {word} anywhere."), "insert_random_list"
    ),
    "remove_index": Operation(
        "list_match_score",
        _asked("Remove the person at position {index}, counted from 0."),
        "remove_index_list",
    ),
    "remove_random": Operation(
        "list_random_remove_score", _asked("Remove any one person."), "remove_random_list"
    ),
    "replace_index": Operation(
        "list_match_score",
        _asked("Replace the person at position {index}, counted from 0, by {word}."),
        "replace_index_list",
    ),
    "replace_random": Operation(
        "list_random_replace_score",
        _asked("Replace any one person by {word}."),
        "replace_random_list",
    ),
}


def seed_of(name: str) -> int:
    """The benchmark's seed of a task."""
    return (int(sha256(name.encode()).hexdigest(), 16) + 42) % 65535


class Lines:
    """Endless samples of one operation."""

    def __init__(self, kind: str, first: Sequence[str], last: Sequence[str]) -> None:
        self.kind = kind
        self.pool = [f"{a} {b}" for a, b in product(first, last)]
        name = OPERATIONS[kind].seeded_as or kind
        self.rng = Random(seed_of(name))

    def draw(self, shortest: int, longest: int) -> Row:
        """A row as in the benchmark's files, without its worked example."""
        length = self.rng.randint(shortest, longest)
        names = self.rng.sample(self.pool, length)
        while not _all_differ(names):
            names = self.rng.sample(self.pool, length)
        result, more = self._changed(names)
        shown: dict[str, Any] = {"context": _listed(names)}
        answer: Any = _listed(result)
        if self.kind == "shuffle" or self.kind.endswith("_random"):
            answer = {"input": names, "example": answer}
            if "word" in more:
                answer["word"] = more["word"]
            shown |= {"word": more["word"]} if "word" in more else {}
        else:
            shown |= more
        return {"input": shown, "answer": answer, "metadata": {"length": length}}

    def _changed(self, names: list[str]) -> tuple[list[str], dict[str, Any]]:
        """The list after the operation, with what was drawn for it."""
        rng, result = self.rng, list(names)
        if self.kind == "reverse":
            return names[::-1], {}
        if self.kind == "sort":
            return sorted(names), {}
        if self.kind == "shuffle":
            while result == names:
                rng.shuffle(result)
            return result, {}
        if self.kind == "copy":
            return result, {}
        more: dict[str, Any] = {}
        if not self.kind.startswith("remove"):
            more["word"] = rng.choice([name for name in self.pool if name not in names])
        last = len(names) if self.kind.startswith("insert") else len(names) - 1
        more["index"] = at = rng.randint(0, last)
        if self.kind.startswith("insert"):
            result.insert(at, more["word"])
        elif self.kind.startswith("remove"):
            del result[at]
        else:
            result[at] = more["word"]
        return result, more

    def file(self, shortest: int, longest: int, per_length: int) -> Iterator[Row]:
        """`per_length` rows of each length, by length, each with one worked example."""
        filled: dict[int, list[Row]] = {n: [] for n in range(shortest, longest + 1)}
        while any(len(rows) < per_length for rows in filled.values()):
            row = self.draw(shortest, longest)
            if len(rows := filled[row["metadata"]["length"]]) < per_length:
                rows.append(row)
        for row in [row for rows in filled.values() for row in rows]:
            example = self.draw(shortest, longest)
            yield {**row, "input": {**row["input"], "icl_examples": [example]}}


def _all_differ(names: Sequence[str]) -> bool:
    parts = [name.split(" ", 1) for name in names]
    return all(len({part[i] for part in parts}) == len(names) for i in (0, 1))


def _listed(names: Sequence[str]) -> str:
    return json.dumps(names, ensure_ascii=False)


class WaitingLines(Task):
    """`per_length` samples of each length and kind, always the same ones."""

    def __init__(
        self, kinds: Sequence[str] | None, min_items: int, max_items: int, per_length: int
    ) -> None:
        if not 2 <= min_items <= max_items <= 15:
            raise ValueError(f"items {min_items} to {max_items}: must lie in 2 to 15")
        if per_length < 1:
            raise ValueError(f"per_length={per_length} must be >= 1")
        self.kinds = chosen(kinds, tuple(OPERATIONS))
        self.min_items, self.max_items, self.per_length = min_items, max_items, per_length

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """The kinds in turn; `limit` in total (None: all)."""
        lists = [list(self._of_kind(kind)) for kind in self.kinds]
        return [sample for together in zip(*lists, strict=True) for sample in together][:limit]

    def _of_kind(self, kind: str) -> Iterator[Sample]:
        prompt = OPERATIONS[kind].prompt
        lines = Lines(kind, NAMES, LAST_NAMES)
        rows = lines.file(self.min_items, self.max_items, self.per_length)
        for number, row in enumerate(rows):
            (example,) = row["input"]["icl_examples"]
            turn = (prompt.format(**example["input"]), example_of(example["answer"]))
            asked = prompt.format(**row["input"])
            yield identified(kind, number, row, asked, example_of(row["answer"]), (turn,))

    def assess(self, sample: Sample, text: str) -> Grade:
        score = METRICS[OPERATIONS[sample.task].metric](text, sample.meta["row"]["answer"])
        return score.grade(text)


def example_of(answer: Any) -> str:
    """A correct response."""
    return answer if isinstance(answer, str) else answer["example"]

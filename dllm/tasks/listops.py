"""List operations on first names, in the spirit of ParallelBench's waiting lines.

arXiv 2510.04767. The kinds differ in how strongly the response's tokens depend on one another:
not at all in `copy`, entirely in `shuffle`. Items are separated by blanks, indices count from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from dllm.tasks.base import GeneratedTask, Sample, chosen
from dllm.tasks.words import NAMES


KINDS = (
    "copy",
    "reverse",
    "sort",
    "insert",
    "remove",
    "replace",
    "replace_random",
    "shuffle",
)


class ListOperations(GeneratedTask):
    """Lists of `min_items` to `max_items` distinct names."""

    def __init__(
        self, kinds: Sequence[str] | None = None, min_items: int = 3, max_items: int = 15
    ) -> None:
        if not 2 <= min_items <= max_items <= 15:
            raise ValueError(f"items {min_items} to {max_items}: must lie in 2 to 15")
        self.kinds = chosen(kinds, KINDS)
        self.min_items, self.max_items = min_items, max_items

    def draw(self, kind: str, rng: Random) -> Sample:
        count = rng.randint(self.min_items, self.max_items)
        *names, new = rng.sample(NAMES, count + 1)
        listed = " ".join(names)
        if kind in ("copy", "reverse", "sort", "shuffle"):
            prompt, result = f"{kind}: {listed}", _arranged(kind, names, rng)
            return Sample.of(kind, prompt, " ".join(result), names=tuple(names))
        result = list(names)
        if kind == "insert":
            index = rng.randint(1, count + 1)
            result.insert(index - 1, new)
            prompt = f"insert {new} at {index}: {listed}"
        elif kind == "remove":
            index = rng.randint(1, count)
            del result[index - 1]
            prompt = f"remove at {index}: {listed}"
        else:  # the position is the model's to choose in replace_random; the reference takes any
            index = rng.randint(1, count)
            result[index - 1] = new
            where = "any" if kind == "replace_random" else f"at {index}"
            prompt = f"replace {where} with {new}: {listed}"
        return Sample.of(kind, prompt, " ".join(result), names=tuple(names), new=new)

    def grade(self, sample: Sample, text: str) -> bool:
        names = list(sample.meta["names"])
        given = text.strip().split(" ")
        if sample.task == "shuffle":
            return sorted(given) == sorted(names) and given != names
        if sample.task == "replace_random":
            new = sample.meta["new"]
            changed = [i for i, (a, b) in enumerate(zip(given, names, strict=False)) if a != b]
            return len(given) == len(names) and len(changed) == 1 and given[changed[0]] == new
        return text.strip() == sample.answer


def _arranged(kind: str, names: list[str], rng: Random) -> list[str]:
    if kind == "copy":
        return list(names)
    if kind == "reverse":
        return names[::-1]
    if kind == "sort":
        return sorted(names)
    result = list(names)
    while result == names:
        rng.shuffle(result)
    return result

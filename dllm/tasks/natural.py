"""The generated tasks as a person would ask them, for models that know a language.

Same content and split as the compact tasks, other wording on both sides; the last wording of every
kind is kept for the test split, so that a model is asked in words it was not trained on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random

from dllm.tasks.arithmetic import Arithmetic
from dllm.tasks.base import GeneratedTask, Sample, chosen
from dllm.tasks.extraction import JsonExtraction
from dllm.tasks.listops import ListOperations


WORDINGS = {
    "copy": (
        "Repeat this list: {names}.",
        "Write the following names again in the same order: {names}.",
        "Copy these names: {names}.",
    ),
    "reverse": (
        "Reverse the order of this list: {names}.",
        "Write these names from last to first: {names}.",
        "Turn this list around: {names}.",
    ),
    "sort": (
        "Sort these names alphabetically: {names}.",
        "Put the following names in alphabetical order: {names}.",
        "Arrange this list from A to Z: {names}.",
    ),
    "insert": (
        "Insert {new} at position {index} of this list: {names}.",
        "Add {new} to the list so that it becomes number {index}: {names}.",
        "Put {new} in place {index} of these names, moving the others back: {names}.",
    ),
    "remove": (
        "Remove the name at position {index} from this list: {names}.",
        "Leave out name number {index}: {names}.",
        "Delete entry {index} of this list: {names}.",
    ),
    "replace": (
        "Replace the name at position {index} with {new}: {names}.",
        "In this list, change name number {index} to {new}: {names}.",
        "Write {new} instead of entry {index}: {names}.",
    ),
    "json": (
        "Extract {fields} as JSON: {sentence}",
        "{sentence} Give {fields} as a JSON object.",
        "Read the sentence and answer with JSON that holds {fields}. {sentence}",
    ),
    "arithmetic": (
        "What is {sum}? Show every step.",
        "Calculate {sum} step by step.",
        "Work out {sum} and write down each step.",
    ),
}
"""Kind -> wordings, the last one for the test split."""

LISTS = tuple(kind for kind in WORDINGS if kind not in ("json", "arithmetic"))


class NaturalTasks(GeneratedTask):
    """Lists of `min_items` to `max_items` names, JSON extraction, worked arithmetic."""

    def __init__(
        self, kinds: Sequence[str] | None = None, min_items: int = 4, max_items: int = 8
    ) -> None:
        self.kinds = chosen(kinds, tuple(WORDINGS))
        self._sources = {
            **dict.fromkeys(LISTS, ListOperations(LISTS, min_items, max_items)),
            "json": JsonExtraction(max_fields=4, max_people=1, nested=False),
            "arithmetic": Arithmetic(max_terms=4, largest_term=50),
        }

    def draw(self, kind: str, rng: Random) -> Sample:
        compact = self._sources[kind].draw(kind, rng)
        seen, kept = WORDINGS[kind][:-1], WORDINGS[kind][-1]
        wording = rng.choice(seen) if compact.split == "train" else kept
        prompt, answer = _said(compact, wording)
        # The compact sample's id keeps its split.
        return Sample(compact.id, kind, prompt, answer, compact.meta)

    def grade(self, sample: Sample, text: str) -> bool:
        if sample.task == "json":
            return self._sources["json"].grade(sample, text)
        return text.strip() == sample.answer


def _said(compact: Sample, wording: str) -> tuple[str, str]:
    if compact.task == "arithmetic":
        *steps, _ = compact.answer.split("\n")
        results = [step.split("=")[1] for step in steps]
        # every step in full: the compact ones go on from the result before
        lines = [_spaced(a + b) for a, b in zip(["", *results], steps, strict=False)]
        answer = "\n".join([*lines, f"The answer is {compact.meta['value']}."])
        return wording.format(sum=_spaced(compact.prompt)), answer
    if compact.task == "json":
        value = json.loads(compact.answer)
        *first, last = value
        sentence = compact.prompt.split("}: ", 1)[1]
        listed = f"{', '.join(first)} and {last}" if first else last
        return wording.format(fields=listed, sentence=sentence), json.dumps(value)
    order, _, names = compact.prompt.partition(": ")
    index = next((word for word in order.split() if word.isdigit()), "")
    prompt = wording.format(
        names=", ".join(names.split()), new=compact.meta.get("new", ""), index=index
    )
    return prompt, ", ".join(compact.answer.split())


def _spaced(text: str) -> str:
    unpadded = re.sub(r"\b0(\d)", r"\1", text)
    return unpadded.replace("+", " + ").replace("-", " - ").replace("=", " = ")

"""Generated tasks as a person would ask them, for models that know a language.

Lists as in the compact tasks, flat JSON of one person, and sums of a few terms of two digits. The
last wording of every kind is kept for the test split, so that a model is asked in words it was not
trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

from dllm.tasks.base import GeneratedTask, Sample, chosen
from dllm.tasks.extraction import CLAUSES, TYPES, JsonExtraction, json_schema
from dllm.tasks.listops import ListOperations
from dllm.tasks.words import CITIES, JOBS, NAMES, PETS


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
        self._lists = ListOperations(LISTS, min_items, max_items)

    def draw(self, kind: str, rng: Random) -> Sample:
        own = {"json": _facts, "arithmetic": _sum}
        compact = own[kind](rng) if kind in own else self._lists.draw(kind, rng)
        seen, kept = WORDINGS[kind][:-1], WORDINGS[kind][-1]
        wording = rng.choice(seen) if compact.split == "train" else kept
        prompt, answer = _said(compact, wording)
        # The compact sample's id keeps its split.
        return Sample(compact.id, kind, prompt, answer, compact.meta)

    def grade(self, sample: Sample, text: str) -> bool:
        if sample.task == "json":
            return JsonExtraction().grade(sample, text)
        return text.strip() == sample.answer


def _sum(rng: Random) -> Sample:
    """Two to four terms of 1 to 50, each result in 0 to 99: `12+7=19`, `19-4=15`."""
    value = rng.randint(1, 50)
    prompt, lines = str(value), []
    for _ in range(rng.randint(2, 4) - 1):
        term = rng.randint(1, 50)  # at most 50 can always be added or subtracted
        sign = rng.choice([s for s in (1, -1) if 0 <= value + s * term <= 99])
        step = f"{'+' if sign > 0 else '-'}{term}"
        lines.append(f"{value}{step}={value + sign * term}")
        prompt += step
        value += sign * term
    return Sample.of("arithmetic", prompt, "\n".join([*lines, f"#### {value}"]), value=value)


def _facts(rng: Random) -> Sample:
    """Two to four fields of one person; the sentence may state one fact more."""
    facts = {
        "name": rng.choice(NAMES),
        "age": rng.randint(10, 99),
        "city": rng.choice(CITIES),
        "job": rng.choice(JOBS),
        "pet": rng.choice(PETS),
        "room": rng.randint(10, 99),
    }
    fields = rng.sample(list(TYPES), rng.randint(2, 4))
    stated = [f for f in fields if f != "name"]
    if len(stated) < 3 and rng.random() < 0.3:  # a fact that nobody asked for
        stated.append(rng.choice([f for f in CLAUSES if f not in stated]))
    rng.shuffle(stated)
    clauses = [rng.choice(CLAUSES[f]).format(**facts) for f in stated]
    schema = ",".join(f"{f}:{TYPES[f]}" for f in fields)
    return Sample.of(
        "json",
        f"json {{{schema}}}: {facts['name']} {' and '.join(clauses)}.",
        json.dumps({f: facts[f] for f in fields}, separators=(",", ":")),
        schema=json_schema(dict.fromkeys(fields, ())),
    )


def _said(compact: Sample, wording: str) -> tuple[str, str]:
    if compact.task == "arithmetic":
        *steps, _ = compact.answer.split("\n")
        lines = [_spaced(step) for step in steps]
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
    return text.replace("+", " + ").replace("-", " - ").replace("=", " = ")

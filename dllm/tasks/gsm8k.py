"""GSM8K (arXiv 2110.14168) as the lm-evaluation-harness asks and reads it.

`gsm8k` is its task of that name (few-shot, `Question: ... Answer:`), `gsm8k_cot` the one with eight
chains of thought, always the same, `gsm8k_cot_zeroshot` the one that says "Let's think step by
step". Strict and flexible extraction differ by points: both are
reported, `filter` names the one that counts as correct.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from dllm.errors import ConfigError
from dllm.tasks.base import Grade, Sample, Split
from dllm.tasks.public import PublicTask, identified
from dllm.tasks.rows import Row, Source
from dllm.tasks.worked_examples import COT


@dataclass(frozen=True)
class Form:
    """One of the harness's GSM8K tasks."""

    question: str
    separator: str
    """Between a question and its worked answer."""
    strict: re.Pattern[str]
    stop: tuple[str, ...]
    examples: tuple[tuple[str, str], ...] = ()
    """Its own worked examples; empty = drawn from the training split."""


FORMS = {
    "gsm8k": Form(
        "Question: {}\nAnswer:",
        " ",
        re.compile(r"#### (\-?[0-9\.\,]+)"),
        ("Question:", "</s>", "<|im_end|>"),
    ),
    "gsm8k_cot": Form(
        "Q: {}\nA:",
        " ",
        re.compile(r"The answer is (\-?[0-9\.\,]+)."),
        ("Q:", "</s>", "<|im_end|>"),
        COT,
    ),
    "gsm8k_cot_zeroshot": Form(
        "Q: {}\nA: Let's think step by step.",
        " ",
        re.compile(r"The answer is (\-?[0-9\.\,]+)."),
        ("Q:", "</s>", "<|im_end|>"),
    ),
}
NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
UNREAD = "[invalid]"
SHOTS_SEED = 1234
"""With it the harness draws the worked examples anew for every question, in the order of the
questions."""


class Gsm8k(PublicTask):
    """
    path: the test file, a folder with test.jsonl and, for shots, train.jsonl; None = the hub
    shots: worked examples from the training split, of gsm8k_cot the first of its eight
    multiturn: whether they are turns of the chat, rather than text before the question
    prefix: how every answer begins; part of the prompt
    """

    kinds = ("gsm8k",)
    final_number = True
    source = Source(hub="openai/gsm8k", name="main", fields=("question", "answer"))

    def __init__(
        self,
        path: str | None,
        form: Literal["gsm8k", "gsm8k_cot", "gsm8k_cot_zeroshot"],
        shots: int,
        multiturn: bool,
        prefix: str,
        filter: Literal["strict_match", "flexible_extract"],
    ) -> None:
        super().__init__(path)
        if shots < 0:
            raise ValueError(f"shots={shots} must be >= 0")
        own = FORMS[form].examples
        if own and shots > len(own):
            raise ValueError(f"shots={shots}: form={form} has {len(own)} worked examples")
        self.form, self.shots, self.multiturn, self.filter = FORMS[form], shots, multiturn, filter
        self.stop, self.prefix = self.form.stop, prefix

    def question(self, row: Row) -> str:
        return self.form.question.format(row["question"])

    def reference(self, row: Row) -> str:
        if not self.form.examples:
            return row["answer"]
        worked, _, number = row["answer"].rpartition("#### ")
        return f"{worked}The answer is {number}."

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        rows = self.rows(split)[:limit]
        samples = []
        for number, (row, shots) in enumerate(zip(rows, self._shots(len(rows)), strict=True)):
            turns = tuple((self.form.question.format(asked), told) for asked, told in shots)
            question = self.question(row)
            if not self.multiturn:
                told = [f"{asked}{self.form.separator}{answer}\n\n" for asked, answer in turns]
                question, turns = "".join(told) + question, ()
            made = question, self.reference(row), turns, self.prefix
            samples.append(identified(self.kinds[0], number, row, *made))
        return samples

    def _shots(self, questions: int) -> list[list[tuple[str, str]]]:
        """(question, answer) pairs in front of each question."""
        if self.form.examples or not self.shots:
            return [list(self.form.examples[: self.shots])] * questions
        try:
            rows = self.rows("train", beside=True)
        except ConfigError as error:
            raise ConfigError(f"task.shots={self.shots}: {error}") from None
        if len(rows) < self.shots:
            raise ConfigError(
                f"task.shots={self.shots}: train.jsonl beside task.path={self.path} has "
                f"{len(rows)} rows"
            )
        examples = [(row["question"], row["answer"]) for row in rows]
        drawn = Random(SHOTS_SEED)
        return [drawn.sample(examples, self.shots) for _ in range(questions)]

    def assess(self, sample: Sample, text: str) -> Grade:
        found = {
            "strict_match": _first(self.form.strict.findall(text)),
            "flexible_extract": _last(NUMBER.findall(text)),
        }
        wanted = normal(sample.meta["row"]["answer"])
        right = {name: normal(answer) == wanted for name, answer in found.items()}
        return Grade(
            correct=right[self.filter],
            unparsed=found[self.filter] == UNREAD,
            scores={name: float(value) for name, value in right.items()},
        )


def _first(matches: Sequence[str]) -> str:
    return matches[0].strip() if matches else UNREAD


def _last(matches: Sequence[tuple[str, str]]) -> str:
    return next((text for text in matches[-1] if text), UNREAD).strip() if matches else UNREAD


def normal(answer: str) -> str:
    """A number without commas, dollars, a final point and what comes before its `#### `."""
    for pattern in (",", r"\$", "(?s).*#### ", r"\.$"):
        answer = re.sub(pattern, "", answer)
    return answer.lower()

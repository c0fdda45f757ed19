"""What a task is: a source of samples with a grader.

A generated task splits by the sample's own content hash, so a prompt cannot be in both halves
whatever seed, order or amount is drawn.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from random import Random
from types import MappingProxyType
from typing import Any, Literal

from dllm.errors import ConfigError


Split = Literal["train", "test"]

TEST_SHARE = 10  # one hash in ten is held out
DEFAULT_COUNT = (
    200  # samples per kind when no limit is given: the size the accuracy bars are stated for
)
MOST = 1_000_000  # samples of one call: more are a slip, and would take hours without a word
SOON = 100_000  # samples that are drawn within seconds
MAX_REJECTIONS = 100_000  # in a row, before a kind is declared too small for what was asked


@dataclass(frozen=True)
class Sample:
    """One question with a reference response."""

    id: str
    """First 16 hexadecimal digits of the sha256 of task and prompt."""
    task: str
    """The kind, for example `reverse`; accuracy is reported per kind."""
    prompt: str
    """What the user asks, without chat markup."""
    answer: str
    """A correct response; the only one, unless the kind is graded by validity."""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What the grader needs beyond the answer."""
    turns: tuple[tuple[str, str], ...] = ()
    """Worked examples before the prompt, as (question, answer) turns of the chat."""
    system: str = ""
    """What the chat begins with, before all turns; empty = nothing."""
    prefix: str = ""
    """How the answer begins; put after the chat's header, no part of the output."""
    form: str = ""
    """The answer with a `[MASK]` for every token that is asked for; empty = all of it is."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat up to the answer."""
        opening = [{"role": "system", "content": self.system}] if self.system else []
        contents = [text for turn in self.turns for text in turn] + [self.prompt]
        roles = ("user", "assistant")
        return opening + [
            {"role": roles[i % 2], "content": text} for i, text in enumerate(contents)
        ]

    @classmethod
    def of(cls, task: str, prompt: str, answer: str, **meta: Any) -> Sample:
        return cls(content_id(task, prompt), task, prompt, answer, MappingProxyType(meta))

    def with_meta(self, **meta: Any) -> Sample:
        return replace(self, meta=MappingProxyType({**self.meta, **meta}))

    @property
    def split(self) -> Split:
        return split_of(self.id)


def content_id(task: str, prompt: str) -> str:
    return hashlib.sha256(f"{task}\n{prompt}".encode()).hexdigest()[:16]


def split_of(sample_id: str) -> Split:
    return "test" if int(sample_id[:8], 16) % TEST_SHARE == 0 else "train"


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What a task says of one output."""

    correct: bool | None
    """None: there is nothing to grade by."""
    unparsed: bool = False
    """No answer could be read from the output; it is not correct either."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Further metrics of the task by name, in [0, 1]."""


class Task(ABC):
    """Samples and their grades; every kind is selected and reported on its own."""

    kinds: tuple[str, ...]
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they and what follows are no part of it."""
    final_number: bool = False
    """The question is answered by the number that a text ends with."""

    @abstractmethod
    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """The first `limit` samples of a split (None: all there are, or the task's default)."""

    @abstractmethod
    def assess(self, sample: Sample, text: str) -> Grade:
        """The grade of `text`, the decoded answer before its end token and stop texts."""

    def answer_in(self, text: str) -> str:
        """`text` before the first stop text."""
        return text[: min((at for s in self.stop if (at := text.find(s)) >= 0), default=None)]


class GeneratedTask(Task):
    """A task whose samples are drawn, not read."""

    @abstractmethod
    def draw(self, kind: str, rng: Random) -> Sample:
        """One sample of `kind`, of either split."""

    @abstractmethod
    def grade(self, sample: Sample, text: str) -> bool:
        """Whether `text` (the decoded response up to EOS) is correct."""

    def assess(self, sample: Sample, text: str) -> Grade:
        return Grade(correct=self.grade(sample, text))

    def draw_from(self, split: Split, kind: str, rng: Random) -> Sample:
        """One sample of `kind` that belongs to `split`."""
        for _ in range(MAX_REJECTIONS):
            sample = self.draw(kind, rng)
            if sample.split == split:
                return sample
        raise Exhausted(f"task {kind}: no {split} sample in {MAX_REJECTIONS} draws")

    def stream(self, generator: Random) -> Iterator[Sample]:
        """Endless training samples, kinds equally likely; repetitions are possible."""
        while True:
            yield self.draw_from("train", generator.choice(self.kinds), generator)

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """`limit` distinct samples, the kinds in turn (None: 200 per kind, or all there are of a
        kind that has fewer).

        The first samples of a longer list are those of a shorter one.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r} is not one of train, test")
        if limit is not None and limit > MOST:
            raise ConfigError(
                f"limit={limit}: a generated task gives up to {MOST:,} samples at a time"
            )
        if limit is not None and limit > SOON:
            warnings.warn(f"limit={limit}: so many samples take a while to draw", stacklevel=2)
        sources = {kind: self._distinct(split, kind, seed) for kind in self.kinds}
        if limit is None:
            drawn = [islice(_all(source), DEFAULT_COUNT) for source in sources.values()]
            return [s for turn in zip_longest(*drawn) for s in turn if s is not None]
        try:
            return [next(sources[self.kinds[i % len(self.kinds)]]) for i in range(limit)]
        except Exhausted as error:
            raise ConfigError(f"limit={limit}: {error}") from None

    def _distinct(self, split: Split, kind: str, seed: int) -> Iterator[Sample]:
        rng = Random(f"{kind}/{split}/{seed}")
        seen: set[str] = set()
        rejected = 0
        while rejected < MAX_REJECTIONS:
            sample = self.draw_from(split, kind, rng)
            if sample.id in seen:
                rejected += 1
                continue
            rejected = 0
            seen.add(sample.id)
            yield sample
        raise Exhausted(f"task {kind}: the {split} split has only about {len(seen)} samples")


class Exhausted(ValueError):
    """A kind has no further sample."""


def _all(source: Iterator[Sample]) -> Iterator[Sample]:
    """The samples up to the last one, at least one."""
    yield next(source)
    with suppress(Exhausted):
        yield from source


def chosen(kinds: Sequence[str] | str | None, known: Sequence[str]) -> tuple[str, ...]:
    """The kinds asked for (None: all), checked against the known ones."""
    if kinds is None:
        return tuple(known)
    asked = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in asked if kind not in known]
    if unknown or not asked or len(set(asked)) < len(asked):
        raise ValueError(f"kinds={list(asked)} must be distinct and among {', '.join(known)}")
    return asked

"""Grammar constraints as options: `constraint=json_schema|grammar|regex`.

Whatever cannot work is refused before the first forward: a schema or grammar that can't be used, a
tokenizer that can't spell it, a canvas that is too short.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np

from dllm.clock import Deadline, Undecided
from dllm.constraints.canvases import CanvasChecker
from dllm.constraints.errors import GrammarError
from dllm.constraints.grammar import Grammar
from dllm.constraints.languages import BUILT_IN, JsonSchema, Language, LarkText, Regex, built_in
from dllm.constraints.lave import LaveReviewer
from dllm.constraints.lookahead import Lookahead
from dllm.constraints.prefixes import PrefixParser, try_masks
from dllm.constraints.reviewing import CfgReviewer, Conduct
from dllm.constraints.vocabulary import Vocabulary
from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.step.canvas import Canvas, Prompt


LONGEST = 1024
"""Tokens up to which the shortest answer is looked for where a canvas is too short."""
FRAMES = 200_000
"""Known situations of one grammar, beyond which they are forgotten."""


@dataclass(frozen=True, kw_only=True)
class GrammarConstraint(ABC):
    """Options that all languages share; `conf/constraint/*.yaml` holds the defaults."""

    method: Literal["cfg", "lave"]
    gap: Literal["tokens", "any"]
    """What a run of masks stands for: exactly so many tokens, or any text."""
    patience: int | None
    budget: int | None
    on_timeout: Literal["reject", "accept"]
    check_timeout: float
    compile_timeout: float
    prefix: str
    top_k: int
    """LAVE: tokens tried at a mask."""
    beams: int
    """LAVE: fillings kept for their score."""
    random_beams: int
    """LAVE: further ones kept at random."""
    retries: int
    """LAVE: refusals in a row after which the block is rewritten."""

    def __post_init__(self) -> None:
        for name in ("check_timeout", "compile_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"constraint.{name}={getattr(self, name)} must be > 0 seconds")
        for name in ("top_k", "beams", "retries", "budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"constraint.{name}={value} must be >= 1")
        for name in ("patience", "random_beams"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"constraint.{name}={value} must be >= 0")

    @abstractmethod
    def option(self, prompt: Prompt) -> str:
        """The option that says what is valid, for messages."""

    @abstractmethod
    def language(self, prompt: Prompt) -> Language:
        """What one prompt's answer has to be.

        Raises `ConfigError` if nothing says so.
        """

    @property
    def conduct(self) -> Conduct:
        return Conduct(
            patience=self.patience,
            budget=self.budget,
            on_timeout=self.on_timeout,
            check_timeout=self.check_timeout,
            prefix=self.prefix,
        )

    def bind(self, tokenizer: Tokenizer, spec: ModelSpec) -> BoundGrammar:
        return BoundGrammar(self, tokenizer, spec)


@dataclass(frozen=True, kw_only=True)
class JsonSchemaConstraint(GrammarConstraint):
    """JSON that a schema accepts."""

    schema: str | None
    """A file; None = each sample's own schema."""
    unsupported: Literal["refuse", "ignore"]

    def option(self, prompt: Prompt) -> str:
        if self.schema is None:
            return f"constraint.schema=null (sample {prompt.sample_id})"
        return f"constraint.schema={self.schema}"

    def language(self, prompt: Prompt) -> Language:
        text = prompt.schema if self.schema is None else _read(self.schema, self.option(prompt))
        if text is None:
            raise ConfigError(
                "constraint.schema=null: the task's samples have no schema; name a file"
            )
        return JsonSchema(text, self.unsupported == "ignore")


@dataclass(frozen=True, kw_only=True)
class LarkConstraint(GrammarConstraint):
    """Sentences of a grammar in Lark's notation."""

    grammar: str
    """A file, or one of the built-in grammars."""
    start: str

    def option(self, prompt: Prompt) -> str:
        return f"constraint.grammar={self.grammar}"

    def language(self, prompt: Prompt) -> Language:
        if self.grammar in BUILT_IN:
            text = built_in(self.grammar)
        else:
            text = _read(self.grammar, self.option(prompt), f"; built in are {', '.join(BUILT_IN)}")
        return LarkText(text, self.start)


@dataclass(frozen=True, kw_only=True)
class RegexConstraint(GrammarConstraint):
    """Texts that a regular expression matches as a whole."""

    pattern: str

    def option(self, prompt: Prompt) -> str:
        return f"constraint.pattern={self.pattern}"

    def language(self, prompt: Prompt) -> Language:
        return Regex(self.pattern)


class BoundGrammar:
    """A constraint on one model's tokens; equal languages share what they have worked out."""

    def __init__(self, options: GrammarConstraint, tokenizer: Tokenizer, spec: ModelSpec) -> None:
        self.options, self.tokenizer, self.spec = options, tokenizer, spec
        self.vocabulary = Vocabulary.of(tokenizer, spec.vocab_size)
        self._grammars: dict[Language, Grammar] = {}
        self._parsers: dict[Language, PrefixParser] = {}
        self._checkers: dict[tuple[Language, frozenset[int]], CanvasChecker] = {}

    def check(self, prompt: Prompt) -> None:
        option = self.options.option(prompt)
        language = self.options.language(prompt)
        ends = (*self.spec.eos_ids, *prompt.stop_ids)
        checker = self._checker(language, frozenset(ends), prompt.gen_length, option)
        if self.options.method == "lave":
            self._parser(language, option)
        shortest = checker.shortest()
        if shortest is not None and shortest <= prompt.gen_length:
            self._check_given(checker, prompt, option)
            return
        if not checker.spellable():
            raise ConfigError(
                f"{option}: the tokenizer's tokens can't spell any answer that it allows"
            )
        try:
            checker = self._checker(language, frozenset(ends), LONGEST, option)
            shortest = checker.shortest()
            least = f"more than {LONGEST}" if shortest is None else f"{shortest}"
        except ConfigError:  # no time left to find out by how much
            least = f"more than {prompt.gen_length}"
        raise ConfigError(
            f"gen_length={prompt.gen_length} is too short for {option}: the shortest answer "
            f"that it allows takes {least} tokens"
        )

    def _check_given(self, checker: CanvasChecker, prompt: Prompt, option: str) -> None:
        """What is not masked at the start has to leave a valid answer."""
        if prompt.region is None:
            return
        try:
            fits = checker.fits(np.array(prompt.region), self._deadline())
        except Undecided:
            raise ConfigError(f"{option} {self._late()}") from None
        if not fits:
            raise ConfigError(f"{option}: the gaps of the given answer leave none that it allows")

    def enter(self, canvas: Canvas, row: int) -> CfgReviewer:
        prompt = canvas.prompts[row]
        start = int(canvas.prompt_length[row])
        longest = int(min(canvas.kept[row], canvas.limit[row])) - start
        option, language = self.options.option(prompt), self.options.language(prompt)
        checker = self._checker(language, frozenset(canvas.ends(row)), longest, option)
        given = (checker, self.options.conduct, language, self.tokenizer, prompt.sample_id, start)
        if self.options.method == "cfg":
            return CfgReviewer(*given)
        return LaveReviewer(
            *given,
            lookahead=Lookahead(
                self._parser(language, option),
                canvas.mask_id,
                frozenset(canvas.ends(row)),
                self.options.top_k,
                self.options.beams,
                self.options.random_beams,
            ),
            retries=self.options.retries,
            random=Random(canvas.generators[row].initial_seed()),
        )

    def _parser(self, language: Language, option: str) -> PrefixParser:
        if language not in self._parsers:
            option = f"{option} with constraint.method=lave"
            try:
                given = (language.guidance(), self.tokenizer, self.spec.eos_ids)
                if isinstance(language, LarkText):
                    try_masks(*given, self._deadline())
                self._parsers[language] = PrefixParser(*given, self.options.prefix)
            except GrammarError as error:
                hint = "try constraint.method=cfg, which follows more"
                raise ConfigError(f"{option}: {error}; {hint}") from None
            except Undecided:
                raise ConfigError(f"{option} {self._late()}") from None
        return self._parsers[language]

    def _checker(
        self, language: Language, ends: frozenset[int], longest: int, option: str
    ) -> CanvasChecker:
        checker = self._checkers.get((language, ends))
        if checker is not None and len(checker.chart) > FRAMES:
            checker.forget()
        if checker is None or checker.longest < longest:
            checker = self._checkers[language, ends] = self._built(language, ends, longest, option)
        return checker

    def _deadline(self) -> Deadline:
        return Deadline.after(self.options.compile_timeout)

    def _late(self) -> str:
        seconds = self.options.compile_timeout
        return f"is not compiled within constraint.compile_timeout={seconds:g} seconds"

    def _built(
        self, language: Language, ends: frozenset[int], longest: int, option: str
    ) -> CanvasChecker:
        deadline = self._deadline()
        try:
            if language not in self._grammars:
                self._grammars[language] = language.grammar(deadline)
            checker = CanvasChecker(
                self._grammars[language],
                self.vocabulary,
                self.spec.mask_id,
                sorted(ends),
                longest,
                self.options.gap == "tokens",
                self.options.prefix.encode(),
                deadline,
            )
        except GrammarError as error:
            raise ConfigError(f"{option}: {error}") from None
        except Undecided:
            raise ConfigError(f"{option} {self._late()}") from None
        if not checker.begins():
            raise ConfigError(
                f"constraint.prefix={self.options.prefix!r}: no answer that it allows begins "
                "like this"
            )
        return checker


def _read(path: str, option: str, hint: str = "") -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise ConfigError(f"{option} can't be read: {error.strerror}{hint}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{option} is no UTF-8 text") from None

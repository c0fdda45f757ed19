"""What an answer has to be: a grammar for the engines, a notation for llguidance, and an
independent judgement of the finished text."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from dllm import judging
from dllm.clock import Deadline, Undecided
from dllm.constraints.errors import GrammarError
from dllm.constraints.grammar import Grammar, load_lark, read_lark
from dllm.constraints.json_schema import strings
from dllm.constraints.json_schema.drafts import Draft, parsed
from dllm.constraints.json_schema.translate import read_json_schema
from dllm.constraints.regex import compile_pattern


BUILT_IN = ("arithmetic", "cpp", "json", "smiles")
MAX_TEXT = 4_000_000
"""Characters of a schema or grammar."""


_NAMES = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\])+/|\w+')
"""Comments, strings, expressions and names of a grammar in Lark's notation."""


def built_in(name: str) -> str:
    """Text of a built-in grammar."""
    return (files("dllm.constraints") / "grammars" / f"{name}.lark").read_text()


class Language(ABC):
    """Raises `GrammarError` for a text that is none of its kind."""

    @abstractmethod
    def grammar(self, deadline: Deadline) -> Grammar: ...

    @abstractmethod
    def complaint(self, text: str) -> str | None:
        """What is wrong with a finished answer, in one line; judged without our engines."""

    @abstractmethod
    def guidance(self) -> str:
        """The same language as llguidance reads it."""


def _sized(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise GrammarError(f"{len(text)} characters are more than the {MAX_TEXT} that are read")
    return text


@dataclass(frozen=True)
class JsonSchema(Language):
    """JSON values that a schema accepts."""

    text: str
    ignore_unknown: bool

    def grammar(self, deadline: Deadline) -> Grammar:
        return read_json_schema(self.schema, self.ignore_unknown, deadline)

    @cached_property
    def schema(self) -> Any:
        return parsed(_sized(self.text))

    def complaint(self, text: str) -> str | None:
        from jsonschema import ValidationError
        from referencing.exceptions import Unresolvable

        try:
            value = judging.read_json(text)
            deadline = Deadline.after(judging.LIMIT)
            draft = Draft.of(self.schema).validator
            judging.validator(self.schema, draft, strings.FORMATS, deadline).validate(value)
        except ValueError as error:
            return f"not valid JSON: {error}"
        except ValidationError as error:
            return f"not valid by the schema: {error.message}"
        except Undecided:
            return judging.LATE
        except RecursionError:
            return "nested too deeply to be judged"
        except Unresolvable as error:
            return f"not to be judged by the schema: {error}"
        return None

    def guidance(self) -> str:
        # A bare schema stops at the closing brace; blanks are as valid around it as within.
        inner = json.dumps(self.schema)
        return f"start: WS? value WS?\nvalue: %json {inner}\nWS: /[ \\t\\n\\r]+/\n"


@dataclass(frozen=True)
class LarkText(Language):
    """Sentences of a grammar in Lark's notation."""

    text: str
    start: str

    def grammar(self, deadline: Deadline) -> Grammar:
        return read_lark(_sized(self.text), self.start, deadline)

    def complaint(self, text: str) -> str | None:
        from lark.exceptions import LarkError

        try:
            judging.check_sentence(self._parser, text, Deadline.after(judging.LIMIT))
        except Undecided:
            return judging.LATE
        except LarkError as error:
            return f"no sentence of the grammar: {str(error).strip().splitlines()[0]}"
        return None

    @cached_property
    def _parser(self) -> Any:
        return load_lark(self.text, self.start)

    def guidance(self) -> str:
        if self.start == "start":
            return self.text
        # llguidance begins with the rule of that name: one that is there already gets another.
        other = "start_"
        while other in self.text:
            other += "_"
        text = _NAMES.sub(lambda m: other if m[0] == "start" else m[0], self.text)
        return f"start: {self.start}\n{text}"


@dataclass(frozen=True)
class Regex(Language):
    """Texts that a regular expression matches as a whole."""

    pattern: str

    def grammar(self, deadline: Deadline) -> Grammar:
        pattern = compile_pattern(_sized(self.pattern), deadline=deadline)
        if pattern.not_before:
            raise GrammarError("look-ahead has no meaning at the end of a whole answer")
        return Grammar.of("start", [("start", ("TEXT",))], {"TEXT": pattern}, None, deadline)

    def complaint(self, text: str) -> str | None:
        try:
            fits = judging.fully_matched(self.pattern, text, Deadline.after(judging.LIMIT))
        except Undecided:
            return judging.LATE
        return None if fits else "not matched by the regular expression"

    def guidance(self) -> str:
        escaped = self.pattern.replace("/", r"\/")
        return f"start: TEXT\nTEXT: /{escaped}/\n"

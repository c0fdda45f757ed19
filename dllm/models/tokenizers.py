"""Tokenizer folders, read offline and without remote code.

transformers reads the folder: ids, added tokens, special tokens and chat template are what it makes
of all files there. Where a folder asks for a class of its own code, the files themselves are read:
tokenizer.json, or vocab.json with merges.txt (Dream). The mask is an id, never a text: its spelling
differs even between files of one folder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dllm.errors import ConfigError
from dllm.models.bounded import bounded_memory
from dllm.models.chat import TEMPLATES, Message
from dllm.models.json_file import read_object, read_optional


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


_RENDERING = 2**28
"""Bytes that a template may take: far more than any prompt."""
_MARKER = re.compile(r"<[^<>\s]+>")
_EMBEDDED = Path(__file__).parent / "tiny"
"""Tokenizers of this repository's own."""
_PRIVATE = range(0xE000, 0xF8FF)
"""Characters without a meaning of their own (Unicode's private use area)."""
_CLOCK = re.compile(r"""strftime_now\b(?:\(\s*(?P<quote>['"])(?P<form>.*?)(?P=quote)\s*\))?""")
"""A template's call of the clock, with its format where that is written out."""
_DIRECTIVE = re.compile(r"%[-_0^#E]*.", re.DOTALL)
_DAYS = "aAbBhdejmyYCgGuUVwWxDFnt%"
"""Directives of `strftime` that say no more than the day."""


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back, and the model's chat format."""

    base: PreTrainedTokenizerFast
    template: str | None
    """Jinja source of the chat format; None = as the folder says."""

    def __len__(self) -> int:
        """Ids the tokenizer knows, added tokens included (a model may have more rows)."""
        return len(self.base)

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of the text as it is: no token is put before or after it.

        With `special` the spelling of a special token becomes that token; without, it is text like
        any other.
        """
        return self.base(
            text, add_special_tokens=False, split_special_tokens=not special, verbose=False
        )["input_ids"]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of the ids; ids that the tokenizer does not know give nothing."""
        return str(self.base.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def token(self, token_id: int) -> str | None:
        """Spelling of one id, None for rows of the model that no token uses."""
        return self.base.backend_tokenizer.id_to_token(token_id)

    def render(self, messages: Sequence[Message] | str, **options: Any) -> str:
        """Chat text ending with the header of the answer; a string is one user message.

        `options` reach the template (`enable_thinking=False`). Raises `ConfigError` where the
        template refuses the messages or is no valid Jinja.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        try:
            with bounded_memory(_RENDERING):
                rendered = self.base.apply_chat_template(
                    [dict(message) for message in messages],
                    chat_template=self.template,
                    tokenize=False,
                    add_generation_prompt=True,
                    **options,
                )
        except Exception as error:  # a template is a program: it may fail in any way
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(f"the chat template can't render the messages: {reason[0]}") from None
        return str(rendered)

    @property
    def day(self) -> str | None:
        """Today, where the chat template writes the date into every prompt, else None.

        Raises `ConfigError` for a template that asks for more than the day: no two prompts would
        be the same.
        """
        template = str(self.template or self.base.chat_template or "")
        for call in _CLOCK.finditer(template):
            form = call["form"]
            if form is None or any(part[-1] not in _DAYS for part in _DIRECTIVE.findall(form)):
                raise ConfigError(
                    f"the chat template asks for the time, {call[0]}...: only the date may be in a "
                    "prompt, strftime_now('%Y-%m-%d')"
                )
        return date.today().isoformat() if _CLOCK.search(template) else None

    def chat(
        self, messages: Sequence[Message] | str, prefix: str = "", **options: Any
    ) -> list[int]:
        """Ids of the rendered chat and of the answer's `prefix`. Only the template writes special
        tokens: their spelling inside a message is the user's text."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not any(self._special.search(message["content"]) for message in messages):
            return self.encode(self.render(messages, **options) + prefix)
        shield = _Shield.beside("".join(message["content"] for message in messages))
        shielded = [
            {**message, "content": shield.cover(message["content"], self._special)}
            for message in messages
        ]
        ids: list[int] = []
        for piece in self._special.split(self.render(shielded, **options) + prefix):
            written = self._special.fullmatch(piece)
            ids += self.encode(piece if written else shield.uncover(piece), special=bool(written))
        return ids

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that are no text of an answer; empty = the tokenizer does not tell."""
        added = self.base.added_tokens_decoder.items()
        return frozenset(number for number, token in added if token.special).union(
            self.base.all_special_ids
        )

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Any special token's spelling, the longest first, as a group so that `split` keeps it."""
        spellings = {
            token.content for token in self.base.added_tokens_decoder.values() if token.special
        }
        longest = sorted(spellings | set(self.base.all_special_tokens), key=len, reverse=True)
        return re.compile("(" + ("|".join(map(re.escape, longest)) or r"(?!)") + ")")


@dataclass(frozen=True)
class _Shield:
    """Hides spellings of special tokens from a template's output: their first characters stand as
    private ones."""

    free: Sequence[str]
    hidden: dict[str, str]
    """Character -> the private one in its place."""

    @classmethod
    def beside(cls, text: str) -> _Shield:
        return cls([chr(code) for code in _PRIVATE if chr(code) not in text], {})

    def cover(self, text: str, special: re.Pattern[str]) -> str:
        def hide(found: re.Match[str]) -> str:
            first, rest = found[0][0], found[0][1:]
            return self.hidden.setdefault(first, self.free[len(self.hidden)]) + rest

        return special.sub(hide, text)

    def uncover(self, text: str) -> str:
        for first, private in self.hidden.items():
            text = text.replace(private, first)
        return text


def load_tokenizer(folder: str | Path, chat_format: str = "plain") -> Tokenizer:
    """The tokenizer in `folder`; `chat_format` names the template used where it brings none.

    Raises `ConfigError` for a folder without a tokenizer that can be read offline, for files that
    contradict each other, and where neither a template nor the format's tokens are there.
    """
    folder = Path(folder)
    config = read_optional(folder / "tokenizer_config.json")
    _check_types(folder / "tokenizer_config.json", config)
    read_optional(folder / "special_tokens_map.json")
    added = read_optional(folder / "added_tokens.json")
    base = _base(folder, config)
    listed = config.get("added_tokens_decoder", {}).items()
    for file, content, token_id in (
        *(("tokenizer_config.json", fields["content"], int(key)) for key, fields in listed),
        *(("added_tokens.json", content, token_id) for content, token_id in added.items()),
    ):
        given = base.convert_tokens_to_ids(content)
        if given != token_id:
            raise ConfigError(
                f"{folder / file}: token {content!r} gets the id {given}, not {token_id!r}"
            )
    if base.chat_template == "":
        raise ConfigError(
            f"model.path={folder}: its chat template is empty, no prompt would be left"
        )
    if base.chat_template:
        return Tokenizer(base, None)
    return _formatted(base, chat_format, f"model.path={folder} brings no chat template")


def with_format(tokenizer: Tokenizer, chat_format: str) -> Tokenizer:
    """The same tokenizer with one of the built-in chat formats (`model.chat`)."""
    if chat_format not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise ConfigError(f"model.chat={chat_format} is not one of {known}")
    return _formatted(tokenizer.base, chat_format, f"model.chat={chat_format}")


def _formatted(base: PreTrainedTokenizerFast, chat_format: str, why: str) -> Tokenizer:
    """Refuses a format whose markers would be spelled out as ordinary text."""
    tokenizer = Tokenizer(base, TEMPLATES[chat_format])
    vocabulary = base.get_vocab()
    for marker in _MARKER.findall(tokenizer.render("")):
        if marker not in vocabulary:
            raise ConfigError(
                f"{why}: the format {chat_format} needs the token {marker}, which the tokenizer "
                f"lacks: set model.chat to one of {', '.join(TEMPLATES)}"
            )
    return tokenizer


def check_ids(tokenizer: Tokenizer, vocab_size: int, mask_id: int, where: str) -> None:
    """Refuses a tokenizer that does not belong to the model: more ids than rows, no token for the
    mask, or another mask token than the model's.

    Where no token is needed for the mask (WeDLM, an id set by hand) call with mask_id < 0.
    """
    if len(tokenizer) > vocab_size:
        raise ConfigError(
            f"{where}: the tokenizer has {len(tokenizer)} ids, the model only {vocab_size} rows"
        )
    if mask_id >= 0 and tokenizer.token(mask_id) is None:
        raise ConfigError(
            f"{where}: the tokenizer has no token for the mask id {mask_id}: set model.mask_id"
        )
    named = tokenizer.base.mask_token_id
    if mask_id >= 0 and named is not None and named != mask_id:
        raise ConfigError(
            f"{where}: the model's mask is {mask_id} ({tokenizer.token(mask_id)}), the tokenizer's "
            f"mask_token {named} ({tokenizer.base.mask_token}): set model.mask_id to the right one"
        )


def _base(folder: Path, config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    whole = (folder / "tokenizer.json").is_file()
    split = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    if whole:
        read_object(folder / "tokenizer.json")
    elif not split and not config:
        raise ConfigError(
            f"model.path={folder} holds no tokenizer.json, nor vocab.json and merges.txt"
        )
    import transformers

    readers = ["AutoTokenizer"]
    if _EMBEDDED in folder.parents:
        # What AutoTokenizer finds, too, once all that it could find is imported (0.2 s).
        readers = ["PreTrainedTokenizerFast"]
    elif whole or split:
        # AutoTokenizer refuses classes of the folder's own code and architectures it can't read.
        readers.append("PreTrainedTokenizerFast" if whole else "Qwen2TokenizerFast")
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    reason = ""
    try:
        for reader in readers:
            try:
                with warnings.catch_warnings(action="ignore"):
                    loaded = getattr(transformers, reader).from_pretrained(
                        folder, trust_remote_code=False, local_files_only=True
                    )
                    if loaded.backend_tokenizer is not None:
                        return loaded
            except Exception as error:  # files of any program: readers raise even bare Exception
                reason = " ".join(str(error).split()) or type(error).__name__
    finally:
        transformers.logging.set_verbosity(level)
    raise ConfigError(f"model.path={folder}: no tokenizer can be read: {reason}")


def _check_types(path: Path, config: Mapping[str, Any]) -> None:
    """Refuses values that transformers would read as something else, or fail on later."""
    template = config.get("chat_template")
    named = isinstance(template, list) and all(
        isinstance(entry, dict) and {"name", "template"} <= entry.keys() for entry in template
    )
    if not (template is None or isinstance(template, str) or named):
        raise ConfigError(
            f"{path}: chat_template must be a text or a list of named ones, not "
            f"{type(template).__name__}"
        )
    listed = config.get("added_tokens_decoder", {})
    if not isinstance(listed, dict) or not all(
        key.isdecimal() and isinstance(fields, dict) and isinstance(fields.get("content"), str)
        for key, fields in listed.items()
    ):
        raise ConfigError(f"{path}: added_tokens_decoder must map ids to tokens with a content")
    longest = config.get("model_max_length")
    if not (longest is None or (type(longest) in (int, float) and longest > 0)):
        raise ConfigError(f"{path}: model_max_length={longest!r} is no number > 0")
    for name, value in config.items():
        if name.endswith("_token") and not name.startswith("add_"):
            text = value.get("content") if isinstance(value, dict) else value
            if text is not None and not isinstance(text, str):
                raise ConfigError(f"{path}: {name}={value!r} is no text")

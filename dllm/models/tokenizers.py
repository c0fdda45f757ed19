"""Tokenizer folders, read offline and without remote code.

Everything ends up as one `tokenizers.Tokenizer`: tokenizer.json directly, vocab.json with
merges.txt (Dream) through transformers' Qwen2 class, anything else through AutoTokenizer. The mask
is an id, never a text: its spelling differs even between files of one folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from dllm.errors import ConfigError
from dllm.models import chat
from dllm.models.chat import Message


SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "mask_token")


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back, and the model's chat format."""

    fast: FastTokenizer
    template: str
    """Jinja source of the chat format."""
    special: dict[str, str]
    """Texts of bos_token, eos_token, ..., where the folder names them."""

    def __len__(self) -> int:
        """Ids the tokenizer knows, added tokens included (a model may have more rows)."""
        return self.fast.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of the text as it is: no token is put before or after it."""
        return self.fast.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of the ids; ids that the tokenizer does not know give nothing."""
        return self.fast.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token(self, token_id: int) -> str | None:
        """Spelling of one id, None for rows of the model that no token uses."""
        return self.fast.id_to_token(token_id)

    def render(self, messages: Sequence[Message] | str, **options: Any) -> str:
        """Chat text ending with the header of the answer; a string is one user message.

        `options` reach the template (`enable_thinking=False`).
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return chat.render(self.template, messages, {**self.special, **options})

    def chat(self, messages: Sequence[Message] | str, **options: Any) -> list[int]:
        return self.encode(self.render(messages, **options))


def load_tokenizer(folder: str | Path, chat_format: str = "plain") -> Tokenizer:
    """The tokenizer in `folder`; `chat_format` names the template used where it brings none.

    Raises `ConfigError` for a folder without a tokenizer that can be read offline.
    """
    folder = Path(folder)
    config = _json(folder / "tokenizer_config.json")
    special = _special_texts(config, _json(folder / "special_tokens_map.json"))
    fast = _fast_tokenizer(folder)
    _add_tokens(fast, config, folder)
    return Tokenizer(fast, _template(folder, config, chat_format), special)


def with_format(tokenizer: Tokenizer, chat_format: str) -> Tokenizer:
    """The same tokenizer with one of the built-in chat formats (`model.chat`)."""
    if chat_format not in chat.TEMPLATES:
        known = ", ".join(chat.TEMPLATES)
        raise ConfigError(f"model.chat={chat_format} is not one of {known}")
    return Tokenizer(tokenizer.fast, chat.TEMPLATES[chat_format], tokenizer.special)


def check_ids(tokenizer: Tokenizer, vocab_size: int, mask_id: int, where: str) -> None:
    """Refuses a tokenizer that does not belong to the model: more ids than rows, or no mask token.

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


def _fast_tokenizer(folder: Path) -> FastTokenizer:
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return FastTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"{path} can't be read: {str(error).splitlines()[0]}") from None
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        import transformers

        Reader = transformers.Qwen2TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]
    elif (folder / "tokenizer_config.json").is_file():
        from transformers import AutoTokenizer as Reader
    else:
        raise ConfigError(
            f"model.path={folder} holds no tokenizer.json, nor vocab.json and merges.txt"
        )
    try:
        loaded = Reader.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return loaded.backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"model.path={folder}: no tokenizer can be read: {first}") from None


def _add_tokens(fast: FastTokenizer, config: dict[str, Any], folder: Path) -> None:
    """Adds the tokens that only tokenizer_config.json lists, at the ids it gives them."""
    listed = config.get("added_tokens_decoder", {})
    for token_id, fields in sorted((int(key), value) for key, value in listed.items()):
        if fast.id_to_token(token_id) is not None:
            continue
        token = AddedToken(fields["content"], special=bool(fields.get("special", False)))
        fast.add_tokens([token])
        given = fast.token_to_id(fields["content"])
        if given != token_id:
            raise ConfigError(
                f"{folder / 'tokenizer_config.json'}: token {fields['content']!r} gets the id "
                f"{given}, not {token_id}"
            )


def _template(folder: Path, config: dict[str, Any], chat_format: str) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text()
    given = config.get("chat_template")
    if isinstance(given, list):
        given = next((t["template"] for t in given if t.get("name") == "default"), None)
    return given or chat.TEMPLATES[chat_format]


def _special_texts(*sources: dict[str, Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for source in sources:
        for name in SPECIAL_TOKENS:
            value = source.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                texts.setdefault(name, value)
    return texts


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None

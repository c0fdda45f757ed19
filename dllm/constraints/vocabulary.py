"""What each token spells, in bytes: pieces of a character are pieces here too."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np

from dllm.errors import ConfigError
from dllm.models.tokenizers import Tokenizer


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Texts of all ids; a special token spells nothing and is no part of a text."""

    texts: tuple[bytes | None, ...]
    distinct: tuple[bytes, ...] = field(init=False, repr=False)
    """Different texts, sorted."""
    bytes: np.ndarray = field(init=False, repr=False)
    """Those texts one after the other."""
    starts: np.ndarray = field(init=False, repr=False)
    """Where each begins in `bytes`."""

    def __post_init__(self) -> None:
        distinct = sorted({text for text in self.texts if text})
        lengths = np.array([len(text) for text in distinct])
        object.__setattr__(self, "distinct", tuple(distinct))
        object.__setattr__(self, "bytes", np.frombuffer(b"".join(distinct), dtype=np.uint8))
        object.__setattr__(self, "starts", np.cumsum(lengths) - lengths)

    @classmethod
    def of(cls, tokenizer: Tokenizer, rows: int) -> Vocabulary:
        """Of a tokenizer whose model has so many rows.

        Raises `ConfigError` for a tokenizer that does not spell texts in bytes.
        """
        state = json.loads(tokenizer.base.backend_tokenizer.to_str())
        if not _byte_level(state.get("decoder")):
            raise ConfigError(
                "constraint: the tokenizer's tokens are not spelled in bytes (no ByteLevel decoder)"
            )
        added = {token["id"]: token for token in state["added_tokens"]}
        byte_of = _bytes_by_letter()
        texts: list[bytes | None] = []
        for token in range(rows):
            spelled = tokenizer.token(token)
            if spelled is None or (token in added and added[token]["special"]):
                texts.append(None)
            elif token in added:
                texts.append(spelled.encode())
            else:
                texts.append(bytes(byte_of[letter] for letter in spelled))
        return cls(tuple(texts))


def _byte_level(decoder: dict | None) -> bool:
    if decoder is None:
        return False
    parts = decoder.get("decoders", [decoder])
    return any(part["type"] == "ByteLevel" for part in parts)


def _bytes_by_letter() -> dict[str, int]:
    """The letters in which byte-level vocabularies write bytes (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}

"""Delimiters: tokens on which a block may end, given as texts or as ids."""

from typing import Literal

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from samplers.parts.checks import in_vocabulary


Delimiters = list[str] | Literal["line_ends"]
"""Exact texts of single tokens; `line_ends`: all tokens that end in a newline."""


def token_ids(tokenizer: Tokenizer, delimiters: Delimiters, option: str) -> list[int]:
    """Ids of the delimiters.

    Raises `ConfigError` naming `option` for a text that is no token.
    """
    texts = [tokenizer.decode([i], skip_special_tokens=False) for i in range(len(tokenizer))]
    if delimiters == "line_ends":
        found = [i for i, text in enumerate(texts) if text.endswith("\n")]
        missing = [] if found else ["that ends in a newline"]
    else:
        found = [i for i, text in enumerate(texts) if text in delimiters]
        missing = [repr(text) for text in delimiters if text not in texts]
    if missing:
        raise ConfigError(
            f"{option}={delimiters}: the tokenizer has no token {', '.join(missing)}; give "
            "texts of single tokens, or delimiter_ids"
        )
    return found


def resolved(
    ids: list[int] | None, delimiters: Delimiters, spec: ModelSpec, option: str
) -> list[int]:
    """The ids, once they are known and if they are in the vocabulary."""
    if ids is None:
        raise ConfigError(f"{option}={delimiters} needs a tokenizer; give delimiter_ids")
    in_vocabulary(option.removeprefix("sampler."), ids, spec)
    return ids

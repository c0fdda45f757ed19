"""How often each token occurs in a text corpus (PC-Sampler's calibration table).

File: {"num_token": tokens counted, "p_baseline_dict": {token id: count}}, the layout of the
official reference_corpus_*.json. Unseen tokens count 1.
"""

import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dllm.errors import ConfigError


def count(sequences: Iterable[Iterable[int]]) -> dict[str, object]:
    """The table of a tokenised corpus."""
    counts: Counter[int] = Counter()
    for tokens in sequences:
        counts.update(tokens)
    if not counts:
        raise ConfigError("the corpus holds no token")
    return {
        "num_token": counts.total(),
        "p_baseline_dict": {str(token): counts[token] for token in sorted(counts)},
    }


def check(option: str, path: str) -> None:
    """Raises `ConfigError` naming `option` unless `path` is a table."""
    _read(option, path)


def check_vocabulary(option: str, path: str, vocabulary: int) -> None:
    """Raises `ConfigError` naming `option` for a count of a token that the model does not have."""
    for token in _read(option, path)[1]:
        if not 0 <= token < vocabulary:
            raise ConfigError(
                f"{option}={path} counts token id {token}, which is outside the vocabulary "
                f"[0, {vocabulary})"
            )


@lru_cache(maxsize=4)
def frequencies(path: str, vocabulary: int, device: torch.device) -> Float[Tensor, "vocab"]:
    """Relative frequency of every token, float64."""
    total, counts = _read("background", path)
    table = torch.full((vocabulary,), 1 / total, dtype=torch.float64)
    tokens = torch.tensor(list(counts))
    table[tokens] = torch.tensor(list(counts.values()), dtype=torch.float64) / total
    return table.to(device)


def _read(option: str, path: str) -> tuple[int, dict[int, int]]:
    try:
        raw = json.loads(Path(path).read_text())
        counts = {int(token): int(seen) for token, seen in raw["p_baseline_dict"].items()}
        total = int(raw["num_token"])
    except OSError as error:
        raise ConfigError(f"{option}={path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{option}={path} holds no num_token and p_baseline_dict") from None
    if total < 1 or not counts:
        raise ConfigError(f"{option}={path} counts no token")
    return total, counts

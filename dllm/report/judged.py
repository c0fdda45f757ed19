"""Answers of an adapted model under its own base, and which of them say the same."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from dllm.config import build
from dllm.errors import ConfigError
from dllm.metrics.statistics import ratio_interval
from dllm.models.adapter import read_adapter
from dllm.models.hub import ModelOptions, adapter_folder, open_model
from dllm.models.tokenizers import Tokenizer
from dllm.models.transformer import Transformer
from dllm.report.adapted import last_number, surprise
from dllm.report.cells import Cell


@cache
def _judge(name: str, path: str | None) -> tuple[Transformer, Tokenizer]:
    return open_model(ModelOptions(name=name, path=path))


@torch.inference_mode()
def perplexity(cell: Cell) -> tuple[float, float, float]:
    """Of all answer tokens under the base, with a 95 % bootstrap interval over the samples.

    Raises `ConfigError` for prompts that the chat template alone does not give again.
    """
    options = build(cell.folder.config().model, "model", kind=ModelOptions)
    folder = adapter_folder(options)
    base = options.name if folder is None else read_adapter(folder).base
    model, tokenizer = _judge(base, options.path)
    nats, counts = [], []
    for sample in cell.samples:
        prompt, answer = tokenizer.chat(sample.prompt), sample.tokens[: sample.effective]
        if len(prompt) != sample.prompt_length:
            raise ConfigError(f"sample {sample.id}: its prompt is not known token by token")
        if answer:
            nats.append(surprise(model, prompt, answer).sum().item())
            counts.append(len(answer))
    low, high = np.exp(ratio_interval(nats, counts)).tolist()
    return math.exp(sum(nats) / sum(counts)), low, high


def agreeing(ours: Sequence[str], theirs: Sequence[str], numbered: bool) -> int:
    """How many texts say the same; `numbered`: end with the same number, where there is one."""

    def said(text: str) -> str:
        return (last_number(text) if numbered else None) or text.strip()

    return sum(said(a) == said(b) for a, b in zip(ours, theirs, strict=True))

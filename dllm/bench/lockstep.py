"""Decoding of a batch in lock-step, as public loops batch: written down plainly.

The prompts are padded on the left so that all answers begin in the same column; every sequence of
the batch goes through every step of every block until the last one has finished it, and the next
batch begins when all are done. Logits are of the block's rows only, as the engine's: what is left
between the two is the batching.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from dllm.bench.naive import BLOCK, Kept
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt


Cache = Literal["none", "prefix", "dual"]


@torch.inference_mode()
def decode(
    model: Transformer,
    prompts: Sequence[Prompt],
    cache: Cache,
    least: float,
    committed: Callable[[], None],
) -> list[list[int]]:
    """The answers of one batch; `committed` is called after every step. `least`: the probability
    from which on a token is committed beside the surest one."""
    spec, device = model.spec, model.device
    before = max(len(prompt.tokens) for prompt in prompts)
    length = before + max(prompt.gen_length for prompt in prompts)
    x = torch.full((len(prompts), length), spec.pad_id, device=device)
    real = torch.zeros_like(x, dtype=torch.bool)
    positions = torch.arange(length, device=device).repeat(len(prompts), 1)
    for row, prompt in enumerate(prompts):
        start, end = before - len(prompt.tokens), before + prompt.gen_length
        x[row, start:before] = torch.tensor(prompt.tokens, device=device)
        x[row, before:end] = spec.mask_id
        real[row, start:end] = True
        positions[row] -= start
    positions.clamp_(min=0)
    for start in range(before, length, BLOCK):
        end, kept = start + BLOCK, None
        while (x[:, start:end] == spec.mask_id).any():
            first, last = (0, length) if kept is None else (start, end)
            if cache == "prefix":
                last = length
            if kept is None and cache != "none":
                kept = Kept(cache, start, end)
            hidden = model.hidden(
                x[:, first:last],
                positions[:, first:last],
                real[:, None, None],
                None if kept is None else kept.exchange,
            )
            logits = model.logits(hidden[:, start - first : end - first])
            tokens, commit = _surest(logits, x[:, start:end] == spec.mask_id, least)
            x[:, start:end] = torch.where(commit, tokens, x[:, start:end])
            committed()
    return [x[row, before : before + p.gen_length].tolist() for row, p in enumerate(prompts)]


def _surest(logits: Tensor, candidates: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Proposed tokens, and which of them are committed: of each sequence the surest candidate and
    all from `least`."""
    confidence, tokens = logits.double().softmax(dim=-1).max(dim=-1)
    confidence.masked_fill_(~candidates, -torch.inf)
    best = torch.zeros_like(candidates).scatter_(1, confidence.argmax(1, keepdim=True), True)
    return tokens, candidates & (best | (confidence >= least))

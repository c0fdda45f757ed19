"""Decoding of a batch in lock-step, as public loops batch: written down plainly.

The prompts are padded on the left so that all answers begin in the same column; every sequence of
the batch goes through every step of every block until the last one has finished it, and the next
batch begins when all are done. The last layer, the head and the scores are of the block's rows
only, computed as the engine's, and nothing is masked where nothing is padded: what is left between
the two is the batching, and with one sequence next to nothing.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from dllm.bench.naive import BLOCK, Kept
from dllm.models.transformer import Transformer
from dllm.step import scores
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
    mask = None if real.all() else real[:, None, None]
    for start in range(before, length, BLOCK):
        end, kept = start + BLOCK, None
        while (x[:, start:end] == spec.mask_id).any():
            first, last = (0, length) if kept is None else (start, end)
            if cache == "prefix":
                last = length
            if kept is None and cache != "none":
                kept = Kept(cache, start, end)
            rows = torch.arange(start - first, end - first, device=device)
            hidden = model.hidden(
                x[:, first:last],
                positions[:, first:last],
                mask,
                None if kept is None else kept.exchange,
                rows=rows.expand(len(prompts), -1),
            )
            logits = model.logits(hidden)
            tokens, commit = _surest(logits, x[:, start:end] == spec.mask_id, least)
            x[:, start:end] = torch.where(commit, tokens, x[:, start:end])
            committed()
    return [x[row, before : before + p.gen_length].tolist() for row, p in enumerate(prompts)]


def _surest(logits: Tensor, candidates: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Proposed tokens, and which of them are committed: of each sequence the surest candidate and
    all from `least`."""
    _, tokens = scores.highest(logits)
    confidence = scores.top_confidence(logits, "float64")
    confidence.masked_fill_(~candidates, -torch.inf)
    best = torch.zeros_like(candidates).scatter_(1, confidence.argmax(1, keepdim=True), True)
    return tokens, candidates & (best | (confidence >= least))

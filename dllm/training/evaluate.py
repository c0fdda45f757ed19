"""Exact-match accuracy per kind under one-token-per-step low-confidence decoding in one block."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from tokenizers import Tokenizer
from torch import Tensor

from dllm.models.masks import attention_mask, hide_keys
from dllm.models.transformer import Transformer
from dllm.tasks.base import GeneratedTask, Sample
from dllm.training.vocabulary import chat_prompt


@torch.inference_mode()
def decode(model: Transformer, prompts: Sequence[list[int]], gen_length: int) -> Tensor:
    """Generated ids [rows, gen_length]: at each step the most confident proposal is committed."""
    spec = model.spec
    rows, width = len(prompts), max(map(len, prompts)) + gen_length
    canvas = torch.full((rows, width), spec.pad_id, device=model.device)
    starts = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    for row, prompt in enumerate(prompts):
        canvas[row, : len(prompt)] = torch.tensor(prompt, device=model.device)
    visible = torch.arange(width, device=model.device) < (starts + gen_length)[:, None]
    region = starts[:, None] + torch.arange(gen_length, device=model.device)
    canvas.scatter_(1, region, spec.mask_id)
    every = torch.arange(rows, device=model.device)
    for _ in range(gen_length):
        hidden = _hidden(model, canvas, visible)
        logits = model.logits(hidden[every[:, None], region]).float()
        confidence, proposal = logits.softmax(-1).max(-1)
        masked = canvas.gather(1, region) == spec.mask_id
        if spec.attention == "block_causal":
            # Blocks left to right: the others lack their past.
            block = region // (spec.block_size or 1)
            first = block.where(masked, width).amin(dim=1, keepdim=True)
            masked = masked & (block == first)
        confidence = confidence.masked_fill(~masked, -1.0)
        best = confidence.argmax(1)
        canvas[every, region[every, best]] = proposal[every, best]
    return canvas.gather(1, region)


def _hidden(model: Transformer, canvas: Tensor, visible: Tensor) -> Tensor:
    """States of every position; a causal model reads what is decided before the masks."""
    if model.spec.attention != "causal":
        index = torch.arange(canvas.shape[1], device=canvas.device)
        rule = attention_mask(model.spec, index, index)
        return model.hidden(canvas, mask=hide_keys(rule, visible)[:, None])
    late = (canvas == model.spec.mask_id).int() + 2 * (~visible).int()
    order = late.argsort(dim=1, stable=True)
    index = torch.arange(canvas.shape[1], device=canvas.device)
    mask = (index[:, None] >= index)[None, None]
    hidden = model.hidden(canvas.gather(1, order), order, mask)
    return hidden.gather(1, order.argsort(dim=1)[..., None].expand_as(hidden))


def accuracy(
    model: Transformer,
    tokenizer: Tokenizer,
    task: GeneratedTask,
    samples: Sequence[Sample],
    gen_length: int = 32,
    batch_size: int = 64,
) -> dict[str, float]:
    """Kind -> share of its samples answered correctly, in the order of `task.kinds`."""
    was_training = model.training
    model.eval()
    right: dict[str, list[bool]] = {kind: [] for kind in task.kinds}
    # similar lengths share a batch, since shorter rows are padded
    encoded = [(s, tokenizer.encode(chat_prompt(s.prompt)).ids) for s in samples]
    encoded.sort(key=lambda pair: len(pair[1]))
    parts = [encoded[at : at + batch_size] for at in range(0, len(encoded), batch_size)]
    # one thread per batch, as in training: threads that share an operation wait for one another
    with ThreadPoolExecutor(
        os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)
    ) as lanes:
        decoded = lanes.map(lambda part: decode(model, [i for _, i in part], gen_length), parts)
        for part, answers in zip(parts, decoded, strict=True):
            for (sample, _), ids in zip(part, answers.tolist(), strict=True):
                text = response_text(ids, model, tokenizer)
                right[sample.task].append(task.grade(sample, text))
    model.train(was_training)
    return {kind: sum(marks) / len(marks) for kind, marks in right.items() if marks}


def response_text(ids: list[int], model: Transformer, tokenizer: Tokenizer) -> str:
    """Text before the first EOS."""
    ends = [i for i, token in enumerate(ids) if token in model.spec.eos_ids]
    return tokenizer.decode(ids[: ends[0]] if ends else ids, skip_special_tokens=False)

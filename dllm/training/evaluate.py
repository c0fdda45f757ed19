"""Exact-match accuracy per kind under one-token-per-step decoding: the engine's, as a run's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from tokenizers import Tokenizer

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt
from dllm.step.sampler import Sampler
from dllm.tasks.base import GeneratedTask, Sample
from dllm.training.vocabulary import chat_prompt


REGIONS = {"arithmetic": 80, "json": 64}
"""Kind -> masked positions that hold its longest answer and an end; LISTS for the others."""
LISTS = 24


def one_per_step(spec: ModelSpec, gen_length: int) -> Sampler:
    """Most confident first in one block; in the attention's own blocks where it has some; from left
    to right where the model predicts the next token."""
    if spec.autoregressive:
        options = ["sampler=left_to_right", "sampler.region.block_length=null"]
        return build(compose(options).sampler, "sampler")
    region = "aligned" if spec.attention == "block_causal" else "fixed"
    length = "null" if spec.attention == "block_causal" else gen_length
    options = [f"sampler/region={region}", f"sampler.region.block_length={length}"]
    return build(compose(["sampler=low_confidence", *options]).sampler, "sampler")


def accuracy(
    model: Transformer,
    tokenizer: Tokenizer,
    task: GeneratedTask,
    samples: Sequence[Sample],
    batch_size: int = 64,
) -> dict[str, float]:
    """Kind -> share of its samples answered correctly, in the order of `task.kinds`; each kind has
    as many masked positions as it needs."""
    was_training = model.training
    model.eval()
    by_region: dict[int, list[Prompt]] = {}
    for s in samples:
        region = REGIONS.get(s.task, LISTS)
        prompt = Prompt(s.id, tuple(tokenizer.encode(chat_prompt(s.prompt)).ids), region)
        by_region.setdefault(region, []).append(prompt)
    parts: list[tuple[Sampler, list[Prompt]]] = []
    for region, prompts in by_region.items():
        sampler = one_per_step(model.spec, region)
        # similar lengths share a batch, since shorter rows are padded
        prompts.sort(key=lambda prompt: len(prompt.tokens))
        starts = range(0, len(prompts), batch_size)
        parts += [(sampler, prompts[at : at + batch_size]) for at in starts]

    def decode(of: tuple[Sampler, list[Prompt]]) -> dict[str, Sequence[int]]:
        sampler, part = of
        decoder = Decoder(Predictor(model), sampler, NoCache(), batch_size=batch_size)
        return {outcome.sample_id: outcome.tokens for outcome in decoder.decode(part)}

    # one thread per batch, as in training: threads that share an operation wait for one another
    with ThreadPoolExecutor(
        os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)
    ) as lanes:
        answers = {name: ids for part in lanes.map(decode, parts) for name, ids in part.items()}
    model.train(was_training)
    right: dict[str, list[bool]] = {kind: [] for kind in task.kinds}
    for sample in samples:
        text = response_text(answers[sample.id], model.spec, tokenizer)
        right[sample.task].append(task.grade(sample, text))
    return {kind: sum(marks) / len(marks) for kind, marks in right.items() if marks}


def response_text(ids: Sequence[int], spec: ModelSpec, tokenizer: Tokenizer) -> str:
    """Text before the first EOS."""
    ends = (i for i, token in enumerate(ids) if token in spec.eos_ids)
    return tokenizer.decode(list(ids[: next(ends, len(ids))]), skip_special_tokens=False)

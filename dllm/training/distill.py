"""Answers of an autoregressive model in its own words: what an adapter is trained on.

Greedy, many questions at a time; a file of JSON lines keeps what is done, so that the same call
goes on after a kill. A student trained on them keeps the model's style and its certainty, and no
text of others is needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm.config import fits
from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.models.transformer import Layer, Transformer
from dllm.runs.identity import network_hash


def check_autoregressive(option: str, spec: ModelSpec) -> None:
    """Raises `ConfigError` for a model that can't answer token by token."""
    if spec.attention != "causal" or not spec.logit_shift:
        raise ConfigError(
            f"{option} is not autoregressive (attention={spec.attention}, "
            f"logit_shift={spec.logit_shift}): its answers can't be read off token by token"
        )


def answers(
    model: Transformer,
    tokenizer: Tokenizer,
    questions: Sequence[str],
    path: Path,
    longest: int,
    batch: int,
) -> list[list[int]]:
    """Token ids per question, without the end token; an answer of `longest` tokens was cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = network_hash(model)
    done = _kept(path, longest, mark)
    # The same batches whatever is done: an answer can depend on its neighbours by rounding.
    asked = sorted(set(questions), key=lambda question: (len(question), question))
    with path.open("a") as file:
        for start in range(0, len(asked), batch):
            part = asked[start : start + batch]
            if all(question in done for question in part):
                continue
            prompts = [tokenizer.chat(question) for question in part]
            for question, ids in zip(part, greedy(model, prompts, longest), strict=True):
                if question in done:
                    continue
                done[question] = ids
                line = {"question": question, "longest": longest, "model": mark, "ids": ids}
                file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
            print(f"answers {start + len(part)} of {len(asked)}", flush=True)
    return [done[question] for question in questions]


def _kept(path: Path, longest: int, mark: str) -> dict[str, list[int]]:
    """What is done, by the same weights if a line tells them; the half line that a kill can leave
    is dropped from the file."""
    try:
        lines = path.read_text().splitlines() if path.is_file() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        told = {"question": str, "longest": int, "ids": list[int]}
        if not all(fits(line.get(name), hint) for line in found for name, hint in told.items()):
            raise ValueError
    except (ValueError, AttributeError):
        raise ConfigError(f"{path} is damaged: remove it or choose another folder") from None
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in found))
    os.replace(partial, path)
    ours = (longest, mark)
    return {
        line["question"]: line["ids"]
        for line in found
        if (line["longest"], line.get("model", mark)) == ours
    }


@torch.inference_mode()
def greedy(model: Transformer, prompts: Sequence[Sequence[int]], longest: int) -> list[list[int]]:
    """The most probable token each time, up to an end token (left out) or `longest` tokens."""
    widest = max(map(len, prompts))
    tokens = torch.full((len(prompts), widest), model.spec.pad_id)
    for row, prompt in enumerate(prompts):
        tokens[row, widest - len(prompt) :] = torch.tensor(prompt)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    store = _Store(model, widest - lengths, widest + longest)
    ends = torch.tensor(model.spec.eos_ids)
    out: list[list[int]] = [[] for _ in prompts]
    alive = torch.ones(len(prompts), dtype=torch.bool)
    for _ in range(longest):
        following = model.logits(store.feed(tokens)[:, -1]).argmax(-1)
        alive &= ~torch.isin(following, ends)
        for row in alive.nonzero().flatten().tolist():
            out[row].append(int(following[row]))
        if not alive.any():
            break
        tokens = following[:, None]
    return out


class _Store:
    """Keys and values of left-padded rows of one length."""

    def __init__(self, model: Transformer, pads: Tensor, capacity: int) -> None:
        self.model, self.pads, self.filled = model, pads, 0
        spec = model.spec
        shape = (spec.n_layers, 2, len(pads), spec.n_kv_heads, capacity, spec.head_dim)
        self.kv = torch.zeros(shape, dtype=model.dtype)

    def feed(self, tokens: Tensor) -> Tensor:
        """States of the fed rows."""
        index = torch.arange(self.filled, self.filled + tokens.shape[1])
        keys = torch.arange(self.filled + tokens.shape[1])
        causal = index[:, None] >= keys
        # A pad attends to itself: a row that sees nothing is not a number.
        seen = (keys >= self.pads[:, None])[:, None] | (index[:, None] == keys)
        mask = (causal & seen)[:, None]
        positions = (index - self.pads[:, None]).clamp(min=0)

        def run(number: int, layer: Layer, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
            normed = layer.attn_norm(x)
            store = self.kv[number, :, :, :, : len(keys)]
            store[0, :, :, index] = layer.attn.keys(normed, tables)
            store[1, :, :, index] = layer.attn.values(normed)
            q = layer.attn.queries(normed, tables)
            out = F.scaled_dot_product_attention(
                q, store[0], store[1], attn_mask=mask, enable_gqa=True
            )
            x = x + layer.attn.o(out.transpose(1, 2).flatten(-2))
            return x + layer.mlp(layer.mlp_norm(x))

        hidden = self.model.hidden(tokens, positions, run=run)
        self.filled += tokens.shape[1]
        return hidden

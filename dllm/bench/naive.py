"""The public decoding loops, written down plainly, and the engine against them on the same model.

LLaDA's static schedule (arXiv 2502.09992), Fast-dLLM's threshold without a cache and with its
prefix and dual caches (arXiv 2505.22618), LocalLeap (arXiv 2510.07081), dInfer's threshold and its
CreditDecoding (arXiv 2510.08666, 2510.06133); one sequence, greedy. As in the published codes a
forward gives the logits of every row that it feeds, and confidences are the softmax of all of them,
in dInfer of the block's. What is compared is the loop: both sides run the same transformer, so that
modelling code slower than it adds nothing here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.bench.caches import SPEC, llada_8b
from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet, faster
from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import RunError
from dllm.forward.predictor import Predictor
from dllm.models.hub import open_model
from dllm.models.loading import dummy_model
from dllm.models.transformer import KeyValueExchange, Transformer
from dllm.step.canvas import Prompt


BLOCK = 32
Cache = Literal["none", "prefix", "dual"]
Choice = Callable[[Float[Tensor, "rows"], Bool[Tensor, "rows"]], Bool[Tensor, "rows"]]
"""Rows to commit, of the confidences and the candidates."""
Rule = Callable[
    [Float[Tensor, "rows vocab"], Bool[Tensor, "rows"]],
    tuple[Int[Tensor, "rows"], Bool[Tensor, "rows"]],
]
"""Each row's proposal and the rows to commit, of the logits and the candidates."""


@dataclass(frozen=True)
class Loop:
    """A published loop, and how the engine is told to do the same."""

    options: list[str]
    rule: Callable[[], Rule]
    """Made for each block: a rule may remember."""
    cache: Cache = "none"
    of_block: bool = False
    """The rule is given the logits of the block, not of every fed row."""


def one(confidence: Tensor, candidates: Tensor) -> Tensor:
    """LLaDA's schedule with as many steps as positions: the surest candidate."""
    best = confidence.masked_fill(~candidates, -torch.inf).argmax()
    return torch.arange(len(candidates), device=candidates.device) == best


def threshold(confidence: Tensor, candidates: Tensor) -> Tensor:
    """Fast-dLLM: the surest one and all from 0.9."""
    return one(confidence, candidates) | (candidates & (confidence >= 0.9))


def localleap(confidence: Tensor, candidates: Tensor) -> Tensor:
    """0.75 is enough within four positions of an anchor, which has 0.9."""
    anchors = candidates & (confidence >= 0.9)
    near = F.max_pool1d(anchors.float()[None, None], 9, 1, 4)[0, 0] > 0
    sure = confidence >= torch.where(near, 0.75, 0.9)
    return one(confidence, candidates) | (candidates & sure)


def nearly(limit: float) -> Choice:
    """dInfer: all from `limit`, or from almost the highest where none has it."""

    def choose(confidence: Tensor, candidates: Tensor) -> Tensor:
        highest = confidence.masked_fill(~candidates, -torch.inf).max()
        return candidates & (confidence >= (highest - 1e-5).clamp(max=limit))

    return choose


def surest(
    logits: Float[Tensor, "rows vocab"], dtype: torch.dtype
) -> tuple[Int[Tensor, "rows"], Float[Tensor, "rows"]]:
    """Each row's most likely token and its probability, by the softmax of all."""
    tokens = logits.argmax(dim=-1)
    p = logits.to(dtype).softmax(dim=-1)
    return tokens, p.gather(-1, tokens[:, None])[:, 0]


def confident(choose: Choice, dtype: torch.dtype = torch.float64) -> Callable[[], Rule]:
    """Commits the most likely tokens, by their probability; `dtype`: of the softmax."""

    def rule(logits: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        tokens, confidence = surest(logits, dtype)
        return tokens, choose(confidence, candidates)

    return lambda: rule


class Credit:
    """CreditDecoding in dInfer: every token's credit at every position of the block."""

    def __init__(self) -> None:
        self.credit: Tensor | None = None

    def __call__(self, logits: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.float()
        if self.credit is None:
            self.credit = torch.zeros_like(logits)
        tokens, confidence = surest(logits, torch.float32)
        self.credit *= 0.8
        self.credit[candidates, tokens[candidates]] += confidence[candidates] ** 0.2
        tokens, confidence = surest(logits + 0.7 * self.credit.log1p(), torch.float32)
        return tokens, nearly(0.8)(confidence, candidates)


class Kept:
    """Keys and values of one block's full forward, joined with what later forwards compute."""

    def __init__(self, cache: Cache, start: int, end: int):
        self.cache, self.start, self.end = cache, start, end
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def exchange(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self.layers:
            self.layers[layer] = (k.clone(), v.clone())
            return k, v
        old_k, old_v = self.layers[layer]
        if self.cache == "prefix":
            prefix_k, prefix_v = old_k[:, :, : self.start], old_v[:, :, : self.start]
            return torch.cat((prefix_k, k), dim=2), torch.cat((prefix_v, v), dim=2)
        old_k[:, :, self.start : self.end], old_v[:, :, self.start : self.end] = k, v
        return old_k, old_v


@torch.inference_mode()
def decode(
    model: Transformer, prompt: Sequence[int], gen_length: int, loop: Loop
) -> tuple[list[int], int]:
    """The answer and the forwards made."""
    mask, cache = model.spec.mask_id, loop.cache
    x = torch.tensor([[*prompt, *[mask] * gen_length]], device=model.device)
    length, forwards = x.shape[1], 0
    for start in range(len(prompt), length, BLOCK):
        end, kept, rule = start + BLOCK, None, loop.rule()
        while (x[0, start:end] == mask).any():
            first, last = (0, length) if kept is None else (start, end)
            if cache == "prefix":
                last = length
            if kept is None and cache != "none":
                kept = Kept(cache, start, end)
            logits = all_logits(model, x, first, last, None if kept is None else kept.exchange)
            forwards += 1
            if loop.of_block:
                logits, first, last = logits[start - first : end - first], start, end
            row = torch.arange(first, last, device=x.device)
            candidates = (x[0, first:last] == mask) & (row < end)
            tokens, commit = rule(logits, candidates)
            if (tokens[commit] == mask).any():
                raise RunError("the plain loops have no way out of a predicted mask token")
            x[0, first:last] = torch.where(commit, tokens, x[0, first:last])
    return x[0, len(prompt) :].tolist(), forwards


def all_logits(
    model: Transformer,
    x: Int[Tensor, "1 canvas"],
    first: int,
    last: int,
    exchange: KeyValueExchange | None,
) -> Float[Tensor, "rows vocab"]:
    positions = torch.arange(first, last, device=x.device)[None]
    return model.logits(model.hidden(x[:, first:last], positions, None, exchange))[0]


STATIC = "LLaDA, one token per step"
LOOPS = {
    STATIC: Loop(["sampler=low_confidence"], confident(one, torch.float32)),
    "Fast-dLLM threshold": Loop(["sampler=threshold"], confident(threshold)),
    "Fast-dLLM prefix": Loop(
        ["sampler=threshold", "cache=prefix"], confident(threshold), cache="prefix"
    ),
    "Fast-dLLM dual": Loop(["sampler=threshold", "cache=dual"], confident(threshold), cache="dual"),
    "LocalLeap": Loop(["sampler=localleap"], confident(localleap)),
    "dInfer threshold": Loop(
        ["sampler=dinfer_threshold"], confident(nearly(0.9), torch.float32), of_block=True
    ),
    "dInfer CreditDecoding": Loop(["sampler=credit"], Credit, of_block=True),
}


@dataclass(frozen=True)
class Against:
    """One loop of the table."""

    name: str
    forwards: int
    timing: Ratio
    """The plain loop over the engine: above 1 the engine is faster."""


def tiny() -> tuple[Transformer, list[Prompt]]:
    """tiny-llada on twelve of its tasks: a small vocabulary, where the loop itself costs most."""
    config = compose([])
    model, tokenizer = open_model(config.model)
    samples = build(config.task, "task").samples("test", 12, config.seed)
    return model, [Prompt(s.id, tuple(tokenizer.chat(s.prompt)), 64) for s in samples]


def large(vocabulary: int = 126_464, generation: int = 64) -> tuple[Transformer, list[Prompt]]:
    """Random weights, 8 layers of 512, LLaDA's vocabulary or another; prompt 128."""
    model = dummy_model(replace(SPEC, n_layers=8, vocab_size=vocabulary))
    # About half of the predictions are sure, as a trained model's are.
    _sharpen(model, 42)
    return model, [Prompt("bench", tuple(range(2, 130)), generation)]


def huge() -> tuple[Transformer, list[Prompt]]:
    """LLaDA-8B's shape in bfloat16 on a GPU, random weights; prompt 128, generation 64."""
    model = dummy_model(llada_8b(), torch.bfloat16, "cuda")
    _sharpen(model, 14)  # logits spread as the smaller model's
    return model, [Prompt("bench", tuple(range(2, 130)), 64)]


def _sharpen(model: Transformer, factor: float) -> None:
    """Surer predictions, none of which is the mask token: with that one a plain loop would commit
    nothing, for ever."""
    assert model.head is not None
    model.head.weight.mul_(factor)
    model.head.weight[model.spec.mask_id] = 0


@dataclass(frozen=True)
class Task:
    made: Callable[[], tuple[Transformer, list[Prompt]]]
    repeats: int


MODELS = {"tiny-llada": Task(tiny, 9), "8x512": Task(partial(large, generation=256), 2)}


def sheet(names: Sequence[str]) -> Sheet:
    return Sheet(
        "The engine against the public loops, written down plainly",
        [
            "One sequence, greedy, float32, no trace kept (trace=false); the same tokens in the "
            "same number of forwards, or no line. Both sides run the same "
            "transformer: what is compared is the loop. tiny-llada: twelve of its tasks, "
            "generation 64. 8x512: random weights, 8 layers of 512, a vocabulary of 126,464, "
            "prompt 128, generation 256.",
            "The aims at 8x512: 4 times for the threshold, LocalLeap and the static schedule, 3 "
            "times for the prefix and the dual cache and for dInfer's; on tiny-llada 1.1 times "
            "each.",
        ],
        {"times faster": "{:.2f}", "forwards": "{:.0f}", "ms per forward": "{:.2f}"},
        "times faster",
        _lines(names),
    )


def _lines(names: Sequence[str]) -> Iterator[Line]:
    for name in names:
        task = MODELS[name]
        for found in measure(*task.made(), task.repeats):
            forwards = found.forwards
            each = {"forwards": forwards, "ms per forward": 1e3 * found.timing.reference / forwards}
            yield faster(f"{name}: {found.name}", found.timing, "times faster", **each)


def measure(model: Transformer, prompts: Sequence[Prompt], repeats: int) -> Iterator[Against]:
    """Every loop in turn with the engine. Raises `RunError` where they do not give the same tokens
    in the same number of forwards."""
    for name, loop in LOOPS.items():
        config = compose(loop.options)
        sampler, policy = build(config.sampler, "sampler"), build(config.cache, "cache")
        decoder = Decoder(Predictor(model), sampler, policy)

        told: dict[str, list] = {}

        def plain(loop: Loop = loop, told: dict[str, list] = told) -> None:
            told["plain"] = [decode(model, p.tokens, p.gen_length, loop) for p in prompts]

        def ours(decoder: Decoder = decoder, told: dict[str, list] = told) -> None:
            told["ours"] = [(list(o.tokens), o.cost.nfe) for o in decoder.decode(prompts)]

        # One token per step makes so many forwards that a third of the pairs will do.
        pairs = max(repeats // 3, 1) if name == STATIC else repeats
        timing = alternate(plain, ours, pairs, warm_up=False)
        if told["ours"] != told["plain"]:
            raise RunError(f"{name}: the engine and the plain loop do not decode the same")
        yield Against(name, sum(made for _, made in told["ours"]), timing)

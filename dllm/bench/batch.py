"""Decoding a queue of prompts in batches: ragged, as the engine does, against lock-step.

Prompts and answers have mixed lengths, all prompts wait at the start, threshold decoding. Both
sides must give the same tokens, and the engine the same as at batch 1: how many agree is told. A
sum over other shapes rounds otherwise, and an untrained model's masked rows are so alike that this
swaps two of them now and then; in half precision more differ.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from math import inf
from statistics import fmean
from typing import Any, cast

from torch import Tensor

from dllm.bench import lockstep
from dllm.bench.machine import Machine, forget_peak, peak, settle
from dllm.bench.naive import BLOCK, huge, large
from dllm.bench.ratio import alternate
from dllm.bench.sheet import Line, Sheet, faster
from dllm.cache.policy import CachePolicy
from dllm.config import build, compose
from dllm.engine.loop import longest_first
from dllm.engine.session import Session
from dllm.engine.setting import Setting
from dllm.errors import RunError
from dllm.forward.predictor import Predictor
from dllm.models.hub import open_model
from dllm.models.transformer import Layer, Transformer
from dllm.step.canvas import Prompt
from dllm.step.sampler import Sampler


COUNT = 32
SIZES = (1, 2, 4, 8, 16, 32)
PROMPTS, BLOCKS = (16, 96), (1, 4)
"""Tokens of a prompt and blocks of an answer: the smallest and the largest number."""
LEAST_SAME = 0.95
"""Share of equal tokens below which it is no rounding; not asked of half precision."""


def tiny() -> Transformer:
    return open_model(compose([]).model)[0]


@dataclass(frozen=True)
class Load:
    """What decodes the queue."""

    model: Callable[[], Transformer]
    caches: tuple[lockstep.Cache, ...]
    repeats: int
    warm_up: bool
    sizes: tuple[int, ...] | None = None
    """Batches; None = `SIZES`."""
    passes: int | None = None
    """Batches that one pass decodes, of at least eight prompts; None = all prompts."""
    rule: str = "threshold"
    """The sampler."""
    graphs: bool = False
    """Forwards are recorded (model.compile=graphs)."""


MODELS: Mapping[str, Load] = {
    "tiny-llada": Load(tiny, ("none", "dual"), 3, True),
    # A pass takes a minute with the cache, and several times as long without one.
    "8x512": Load(lambda: large()[0], ("dual",), 1, False, (1, 4, 16)),
}
GPU = (
    Load(lambda: huge()[0], ("dual",), 1, False, (1, 4, 16, 32), 2),
    Load(lambda: huge()[0], ("none", "prefix"), 1, False, (1, 16), 2),
    Load(lambda: huge()[0], ("dual",), 1, False, (1, 8, 32), 1, "low_confidence"),
    Load(lambda: huge()[0], ("dual",), 1, False, (1, 4, 16), 2, graphs=True),
    Load(lambda: huge()[0], ("dual",), 1, False, (1, 8, 32), 1, "low_confidence", graphs=True),
)
LEAST = {"threshold": 0.9, "low_confidence": inf}
"""Of each rule, the probability from which on more than one token is committed."""


def sheet(names: Sequence[str], machine: Machine) -> Sheet:
    return Sheet(
        "Batches: ragged against lock-step",
        [
            f"{COUNT} prompts of {PROMPTS[0]} to {PROMPTS[1]} tokens with answers of "
            f"{BLOCKS[0]} to {BLOCKS[1]} blocks of {BLOCK}, all waiting at the start; threshold "
            "0.9, or one token per step (low_confidence). Lock-step: batches in the queue's order, "
            "padded on the left, done when their longest answer is; the engine takes the longest "
            "first. Tokens are compared before a line is told. The aims: at least 1.4 times the "
            "lock-step at batch 16, and no batch dearer per token than batch 1. Three pairs on "
            "tiny-llada, one on a larger model. On a GPU small batches decode the first of the "
            "prompts only.",
            "First token: seconds from the start until a prompt's first token is written, on "
            "average over the prompts. Of bandwidth: bytes of weights that the forwards read, per "
            "second, over what a copy reads and writes; of product speed: operations of the "
            "products with weights that are started, padding included, attention's left out. "
            "Memory: the most that torch held beyond the model, on a GPU.",
        ],
        {
            "times lock-step": "{:.2f}",
            "tokens/s": "{:.1f}",
            "lock-step tokens/s": "{:.1f}",
            "cost of a token, batch 1 = 1": "{:.2f}",
            "first token, s": "{:.2f}",
            "lock-step first token, s": "{:.2f}",
            "forwards": "{:.0f}",
            "lock-step forwards": "{:.0f}",
            "% of bandwidth": "{:.0f}",
            "% of product speed": "{:.0f}",
            "same tokens, %": "{:.1f}",
            "memory, MiB": "{:.0f}",
        },
        "times lock-step",
        _lines(names, machine),
    )


def _lines(names: Sequence[str], machine: Machine) -> Iterator[Line]:
    if machine.device == "cuda":
        for load in GPU:
            yield from measure("LLaDA-8B's shape", load, machine)
    else:
        for name in names:
            yield from measure(name, MODELS[name], machine)


@dataclass
class Run:
    """One pass over the queue."""

    answers: list[list[int]]
    started: float = field(default_factory=time.perf_counter)
    first: dict[int, float] = field(default_factory=dict)
    """Seconds to each prompt's first token."""

    def began(self, prompts: Sequence[int]) -> None:
        """Tokens of these prompts were written."""
        for prompt in prompts:
            self.first.setdefault(prompt, time.perf_counter() - self.started)


def measure(name: str, load: Load, machine: Machine) -> Iterator[Line]:
    """A line per cache and batch. Raises `RunError` where the tokens are not the same."""
    model = load.model()
    model.graphs = load.graphs
    waiting = queue(model)
    exact = model.dtype.itemsize > 2
    forget_peak(machine.device)
    held = peak(machine.device)
    for cache in load.caches:
        alone: list[list[int]] = []
        cost = 0.0
        # In the lock-step's precision, whatever the rule's own is.
        own = ["sampler.conf_dtype=float64"]
        config = compose([f"sampler={load.rule}", f"cache={cache}", *own])
        sampler, policy = build(config.sampler, "sampler"), build(config.cache, "cache")

        def setting(size: int, sampler: Sampler = sampler, policy: CachePolicy = policy) -> Setting:
            return Setting(Predictor(model), sampler, policy, batch_size=size)

        if machine.device != "cpu":  # its kernels are loaded when they are first called
            decode(setting(2), waiting[:2])
            decode_locked(model, waiting[:2], load.rule, cache, 2)
        for size in load.sizes or SIZES:
            runs: dict[str, Any] = {}
            count = None if load.passes is None else max(8, load.passes * size)
            prompts = waiting[:count]
            tokens = sum(prompt.gen_length for prompt in prompts)
            forget_peak(machine.device)

            own = setting(size)

            def ragged(own: Setting = own, prompts: list = prompts, runs: dict = runs) -> None:
                with counted(model) as runs["work"]:
                    runs["ragged"] = decode(own, prompts)
                runs["peak"] = peak(machine.device)

            def locked(
                cache: lockstep.Cache = cache,
                size: int = size,
                prompts: list = prompts,
                runs: dict = runs,
            ) -> None:
                with counted(model) as runs["work of locked"]:
                    runs["locked"] = decode_locked(model, prompts, load.rule, cache, size)

            timing = alternate(locked, ragged, load.repeats, load.warm_up)
            ours, theirs, work = runs["ragged"], runs["locked"], runs["work"]
            alone = alone or ours.answers
            memory = {} if held is None else {"memory, MiB": (runs["peak"] - held) / 2**20}
            same = min(
                _agreement(ours.answers[: len(alone)], alone),
                _agreement(ours.answers, theirs.answers),
            )
            if exact and same < LEAST_SAME:
                raise RunError(
                    f"{name}, cache={cache}, batch {size}: only {same:.1%} of the tokens are the "
                    "same"
                )
            each = timing.reference / tokens
            cost = cost or (each if size == 1 else 0.0)
            relative = {"cost of a token, batch 1 = 1": each / cost} if cost else {}
            limits = {
                "forwards": work.forwards,
                "lock-step forwards": runs["work of locked"].forwards,
                "% of bandwidth": 100 * work.bytes / timing.reference / machine.bandwidth,
                "% of product speed": 100
                * work.flops
                / timing.reference
                / machine.flops[model.dtype],
            }
            if load.graphs:  # what is replayed is not called, nor counted
                limits = {}
            rule = "" if load.rule == "threshold" else f"{load.rule}, "
            rule += "recorded, " if load.graphs else ""
            yield faster(
                f"{name}, {rule}cache={cache}, batch {size}",
                timing,
                "times lock-step",
                **{
                    "tokens/s": tokens / timing.reference,
                    "lock-step tokens/s": tokens / timing.ours,
                    **relative,
                    "first token, s": fmean(ours.first.values()),
                    "lock-step first token, s": fmean(theirs.first.values()),
                    **limits,
                    "same tokens, %": 100 * same,
                    **memory,
                },
            )


def queue(model: Transformer, seed: int = 0) -> list[Prompt]:
    rng = random.Random(seed)
    special = {model.spec.mask_id, *model.spec.eos_ids, model.spec.pad_id}
    plain = [token for token in range(200) if token not in special]
    return [
        Prompt(
            str(number),
            tuple(rng.choices(plain, k=rng.randint(*PROMPTS))),
            BLOCK * rng.randint(*BLOCKS),
        )
        for number in range(COUNT)
    ]


def decode(setting: Setting, prompts: Sequence[Prompt]) -> Run:
    """The engine's way: who has finished makes place for the next one."""
    run = Run([[] for _ in prompts])
    session = Session(setting)
    tickets = {session.submit(prompt): int(prompt.sample_id) for prompt in longest_first(prompts)}
    while session.busy:
        events = session.step()
        run.began([tickets[ticket] for ticket, written in events.written if written.positions])
        for ticket, outcome in events.finished:
            run.answers[tickets[ticket]] = list(outcome.tokens)
    return run


def decode_locked(
    model: Transformer, prompts: Sequence[Prompt], rule: str, cache: lockstep.Cache, size: int
) -> Run:
    """One batch after the other."""
    run = Run([])
    for start in range(0, len(prompts), size):
        part = range(start, min(start + size, len(prompts)))
        batch = [prompts[number] for number in part]
        run.answers += lockstep.decode(
            model, batch, cache, LEAST[rule], lambda part=part: run.began(part)
        )
    settle(model.device.type)
    return run


def _agreement(ours: Sequence[list[int]], theirs: Sequence[list[int]]) -> float:
    """Share of equal tokens."""
    pairs = [(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


@dataclass
class Work:
    """What the products with the weights take."""

    forwards: int = 0
    flops: float = 0.0
    bytes: float = 0.0


@contextmanager
def counted(model: Transformer) -> Iterator[Work]:
    """Adds up the products that every call of the model's two forward methods starts."""
    work, size = Work(), model.dtype.itemsize
    head = (model.embed if model.head is None else model.head).weight.numel()
    layer = cast(Layer, model.layers[0])
    of_keys, of_queries, of_rest = (
        sum(weight.numel() for part in parts for weight in part.parameters() if weight.dim() == 2)
        for parts in ((layer.attn.k, layer.attn.v), (layer.attn.q, layer.attn.o), (layer.mlp,))
    )
    hidden, logits, named_by = model.hidden, model.logits, signature(model.hidden)

    def add(weights: int, rows: int) -> None:
        work.flops += 2.0 * weights * rows
        work.bytes += weights * size

    def fed(tokens: Tensor, *arguments: Any, **named: Any) -> Tensor:
        call = named_by.bind(tokens, *arguments, **named).arguments
        rows, real = call.get("rows"), call.get("real")
        every = tokens.numel()
        wanted = every if rows is None else rows.numel()
        work.forwards += 1
        for index in range(len(model.layers)):
            last = index == len(model.layers) - 1
            own = every if real is None else len(real[0])
            add(of_keys, every)
            add(of_queries, wanted if last else every)
            add(of_rest, wanted if last and rows is not None else own)
        return hidden(tokens, *arguments, **named)

    def read(states: Tensor) -> Tensor:
        add(head, states.shape[:-1].numel())
        return logits(states)

    model.hidden, model.logits = fed, read  # type: ignore[method-assign]
    try:
        yield work
    finally:
        del model.hidden, model.logits

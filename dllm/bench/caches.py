"""What a step costs under each cache against computing the whole canvas, on a random LLaDA.

A dual step's growth with the canvas is its rows' attention to more slots and nothing else: keys and
values are written in place and read where they lie, without a mask. By number of operations that
is 29 % from 1,024 to 2,560 slots; the fused attention computes at about the rate of the step's
matrices (measured on one core: 21 to 52 of 119 ms).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dllm.bench.machine import Machine, waiting
from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet, faster
from dllm.cache.policy import CachePolicy
from dllm.config import build, compose
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.loading import dummy_model, spec_from_config
from dllm.models.presets import preset_config
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.plan import Request, pad_positions


SPEC = ModelSpec(
    family="llada",
    vocab_size=32_000,
    d_model=512,
    n_layers=16,
    n_heads=8,
    n_kv_heads=8,
    head_dim=64,
    d_ff=1536,
    norm_eps=1e-5,
    rope_theta=5e5,
    max_positions=4096,
    mask_id=0,
    eos_ids=(1,),
    pad_id=1,
    rope_fp32=True,
)
PROMPT, BLOCK, ACTIVE = 512, 32, 16
LENGTHS = 512, 2048
"""Of the generation."""
POLICIES = {
    "prefix": ["cache=prefix"],
    "dual": ["cache=dual"],
    "window": ["cache=window", "cache.outer_window=128"],
}


def sheet(machine: Machine) -> Sheet:
    spec, dtype = shape(machine.device)
    return Sheet(
        "A step under each cache",
        [
            f"Random LLaDA of {spec.n_layers} layers, {spec.d_model} wide, vocabulary "
            f"{spec.vocab_size:,}; prompt {PROMPT}, block {BLOCK}, window of 128 with {ACTIVE} "
            f"active; {str(dtype).removeprefix('torch.')}. Cheaper: the step against one on the "
            "whole canvas, generation 512. Growth: the step at generation 2,048 against 512. The "
            "aims: prefix 1.8 times, dual 5, window 8; growth of dual and window at most 25 %."
        ],
        {
            "times cheaper": "{:.1f}",
            "ms": "{:.0f}",
            "growth, %": "{:.0f}",
            "smallest growth, %": "{:.0f}",
            "largest growth, %": "{:.0f}",
        },
        "times cheaper",
        _lines(machine.device),
    )


def shape(device: str) -> tuple[ModelSpec, torch.dtype]:
    """16 layers of 512 in float32 on the host, LLaDA-8B's shape in bfloat16 on a GPU."""
    return (SPEC, torch.float32) if device == "cpu" else (llada_8b(), torch.bfloat16)


def llada_8b() -> ModelSpec:
    return spec_from_config(preset_config("llada-8b"), source="preset llada-8b")


def _lines(device: str) -> Iterator[Line]:
    for cost in measure(*LENGTHS, device=device):
        growth = cost.growth
        yield faster(
            cost.name,
            cost.against_full,
            "times cheaper",
            **{
                "ms": 1e3 * cost.against_full.reference,
                "growth, %": 100 * (growth.ratio - 1),
                "smallest growth, %": 100 * (growth.low - 1),
                "largest growth, %": 100 * (growth.high - 1),
            },
        )


@dataclass(frozen=True)
class StepCost:
    """One policy's ordinary step: the refresh before it is made, the logits of a block included."""

    name: str
    against_full: Ratio
    """The whole canvas over the step, at the shorter generation."""
    growth: Ratio
    """The step at the longer generation over the one at the shorter; same tokens wanted."""


class _Step:
    """One policy in the middle of the first block of one sequence."""

    def __init__(self, predictor: Predictor, policy: CachePolicy, gen_length: int, wanted: int):
        self.predictor, self.policy = predictor, policy
        model, length = predictor.model, PROMPT + gen_length
        prompt = Prompt("bench", tuple(range(2, 2 + PROMPT)), gen_length)
        self.canvas = Canvas.empty(length, model.spec.mask_id, model.spec.eos_ids)
        layout = Layout(length, length, length, 0)
        self.canvas.append(prompt, layout, torch.Generator())
        self.canvas.enter_block(0, PROMPT, PROMPT + BLOCK)
        self.store = None
        if policy.stores:
            self.store = KVStore(model.spec, 1, length, model.dtype, model.device)
        self.policy.begin(model.spec)
        self.wanted = wanted
        for _ in range(2):  # the refresh, then a first step that settles what is fed
            self.policy.plan(self.canvas, self.request(), self.store)
            self.canvas.step += 1
            self.canvas.step_in_block += 1
        if self.store is not None:
            self.store.valid.fill_(True)  # as the refresh would: what it holds takes no other time

    def request(self) -> Request:
        first = np.arange(self.canvas.capacity) < PROMPT + self.wanted
        return Request(pad_positions(self.canvas.masked() & first))

    def __call__(self) -> None:
        for plan in self.policy.plan(self.canvas, self.request(), self.store):
            self.predictor.predict(plan, self.store)


def measure(short: int, long: int, repeats: int = 3, device: str = "cpu") -> Iterator[StepCost]:
    """Every policy at both generation lengths."""
    predictor = Predictor(dummy_model(*shape(device), device))

    def step(options: list[str], gen_length: int, wanted: int) -> Callable[[], object]:
        policy = build(compose(options).cache, "cache")
        return waiting(_Step(predictor, policy, gen_length, wanted), device)

    full = step(["cache=none"], short, BLOCK)
    for name, options in POLICIES.items():
        wanted = ACTIVE if name == "window" else BLOCK
        cheap = step(options, short, wanted)
        longer = step(options, long, wanted)
        against_full = alternate(full, cheap, repeats)
        # The prefix cache's longer step is a whole canvas: a few of them will do.
        growth = alternate(longer, cheap, repeats if name == "prefix" else 8 * repeats)
        yield StepCost(name, against_full, growth)

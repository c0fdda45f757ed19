"""Parameters and memory of a model, from its spec alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dllm.models.shape import shape_only
from dllm.models.spec import ModelSpec


PARTS: tuple[str, ...] = (
    "embedding",
    "attention",
    "router",
    "experts",
    "feed-forward",
    "norms",
    "head",
)


@dataclass(frozen=True)
class Sizes:
    """Counted over the stored tensors, buffers included; a tied head counts once."""

    parts: dict[str, int]
    active: int
    """Parameters that one token passes through (all, unless there are experts)."""
    kv_values_per_position: int
    """Numbers that a full key/value store keeps per position."""

    @property
    def parameters(self) -> int:
        return sum(self.parts.values())


def sizes(spec: ModelSpec) -> Sizes:
    """Counted on a model without memory (meta device)."""
    state = shape_only(spec).state_dict()
    parts = dict.fromkeys(PARTS, 0)
    for name, tensor in state.items():
        parts[part_of(name)] += tensor.numel()
    active = sum(parts.values())
    if spec.moe is not None:
        active -= parts["experts"] * (spec.moe.n_experts - spec.moe.top_k) // spec.moe.n_experts
    return Sizes(
        {name: count for name, count in parts.items() if count},
        active,
        2 * sum(math.prod(spec.kv_shape(layer)) for layer in range(spec.n_layers)),
    )


def part_of(parameter: str) -> str:
    """Which of `PARTS` a parameter of our transformer belongs to."""
    if parameter.startswith("embed"):
        return "embedding"
    if parameter.startswith("head"):
        return "head"
    if "norm" in parameter or parameter.endswith(("decoder_scale", "encoder_scale")):
        return "norms"
    if ".attn." in parameter:
        return "attention"
    if parameter.endswith((".router", ".router_scale", ".expert_scale", ".expert_bias")):
        return "router"
    return "experts" if parameter.endswith((".gate_up", ".down")) else "feed-forward"


@dataclass(frozen=True)
class Memory:
    """Bytes of one forward over full canvases."""

    batch: int
    length: int
    weights: int
    kv: int
    """A store of every position."""
    logits: int
    """Logits of `rows` positions per sequence."""

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.logits


def memory(
    spec: ModelSpec,
    dtype: torch.dtype,
    batches: tuple[int, ...],
    lengths: tuple[int, ...],
    rows: int = 32,
) -> Iterator[Memory]:
    """One entry per batch and length that the model's positions allow; `rows` are the positions
    predicted at a time (a block)."""
    size = sizes(spec)
    for batch in batches:
        for length in lengths:
            if length <= spec.max_positions:
                yield Memory(
                    batch,
                    length,
                    size.parameters * dtype.itemsize,
                    batch * length * size.kv_values_per_position * dtype.itemsize,
                    batch * rows * spec.vocab_size * dtype.itemsize,
                )

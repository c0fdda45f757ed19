"""Forwards over one contiguous span of positions per sequence: what every block cache plans."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm.cache.rows import CHANGED
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Plan, Request


IntRow = Int[np.ndarray, "batch"]


def span_plan(
    canvas: Canvas,
    request: Request | None,
    kinds: Sequence[ForwardKind],
    start: IntRow,
    end: IntRow,
    slots: int,
    visible_to: IntRow,
    write: Literal["all"] | Bool[np.ndarray, "batch slots"],
    attention_block: IntRow | None = None,
) -> Plan:
    """Feeds [start, end) of each sequence, or of all its branches; empty spans take no part.

    Stored slots below `visible_to` may be attended; `write` says which fed slots are kept.
    `attention_block`: attention among the fed rows is causal over blocks of that size, counted from
    position 0. Raises `ConfigError` if a branch differs from its canvas where stored keys stand for
    it.
    """
    tokens = canvas.tokens[:, None]
    if request is not None and request.branches is not None:
        ahead = canvas.length if attention_block is None else end
        _check_branches(canvas, request.branches, start, end, ahead)
        tokens = request.branches
    batch, copies, _ = tokens.shape
    count = end - start
    offset = np.arange(int(count.max(initial=0)))
    own = np.where(offset < count[:, None], start[:, None] + offset, -1)  # [batch, rows]
    place = np.maximum(own, 0)
    present = tokens[:, :, 0] >= 0  # [batch, copies]
    # Entries: the first branch of each sequence, then the second of each, and so on.
    fed = np.where(present.T[:, :, None], own[None], -1).reshape(batch * copies, -1)
    every = np.arange(batch)[:, None]
    rows = tokens[every, :, place].transpose(2, 0, 1).reshape(batch * copies, -1)
    kept: Literal["all", "none"] | Tensor = "all"
    if not isinstance(write, str):
        flags = _repeated(write[every, place], copies) & (fed >= 0)
        kept = torch.from_numpy(flags) if flags.any() else "none"
    fed_slots = torch.from_numpy(fed)
    visible = np.arange(slots) < visible_to[:, None]
    wanted = None
    if request is not None:
        wanted = torch.from_numpy(_repeated(request.positions, copies))
    return Plan(
        kind=kinds[0] if len(set(kinds)) == 1 else tuple(kinds),
        tokens=torch.from_numpy(np.maximum(rows, 0)),
        positions=fed_slots.clamp(min=0),
        slots=fed_slots,
        fed=count * present.sum(axis=1),
        padded=bool((fed < 0).any()),
        visible=torch.from_numpy(_repeated(visible, copies)) if visible_to.any() else None,
        within=_within(fed_slots, start, end, attention_block),
        write=kept,
        logits_for=wanted,
    )


def _repeated(rows: np.ndarray, copies: int) -> np.ndarray:
    return rows if copies == 1 else np.tile(rows, (copies, 1))


def _within(
    slots: Tensor, start: IntRow, end: IntRow, attention_block: IntRow | None
) -> Literal["full"] | Tensor:
    if attention_block is None or (start // attention_block == (end - 1) // attention_block).all():
        return "full"
    size = torch.from_numpy(attention_block)[:, None]
    block = slots // size.repeat(len(slots) // len(size), 1)
    return block[:, :, None] >= block[:, None, :]


def _check_branches(
    canvas: Canvas,
    branches: Int[np.ndarray, "batch branches canvas"],
    start: IntRow,
    end: IntRow,
    ahead: IntRow,
) -> None:
    """Stored keys stand for what lies before `start` and in [end, ahead)."""
    index = np.arange(canvas.capacity)
    stored = (index < start[:, None]) | ((index >= end[:, None]) & (index < ahead[:, None]))
    changed = (branches != canvas.tokens[:, None]) & (branches[:, :, :1] >= 0)
    if (changed & stored[:, None]).any():
        raise CHANGED

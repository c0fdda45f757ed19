"""Forwards over one contiguous span of positions per sequence: what every block cache plans."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm.cache.rows import CHANGED, canvases
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
    tokens = canvas.tokens if request is None else canvases(canvas, request)
    if request is not None and request.branches is not None:
        ahead = canvas.length if attention_block is None else end
        _check_branches(canvas, request.branches, start, end, ahead)
    entries = len(tokens)
    copies = entries // canvas.batch
    count = end - start
    offset = np.arange(int(count.max(initial=0)))
    fed = np.where(offset < count[:, None], start[:, None] + offset, -1)  # [batch, rows]
    if request is not None and request.branches is not None:
        present = tokens[:, :1] >= 0
        fed = np.where(present, _repeated(fed, copies), -1)
        count = count * present.reshape(copies, -1).sum(axis=0)
    place = np.maximum(fed, 0)
    every = np.arange(entries)[:, None]
    kept: Literal["all", "none"] | Tensor = "all"
    if not isinstance(write, str):
        flags = _repeated(write, copies)[every, place] & (fed >= 0)
        kept = torch.from_numpy(flags) if flags.any() else "none"
    fed_slots = torch.from_numpy(fed)
    visible = np.arange(slots) < visible_to[:, None]
    wanted = None
    if request is not None:
        wanted = torch.from_numpy(_repeated(request.positions, copies))
    return Plan(
        kind=kinds[0] if len(set(kinds)) == 1 else tuple(kinds),
        tokens=torch.from_numpy(np.maximum(tokens[every, place], 0)),
        positions=torch.from_numpy(place),
        slots=fed_slots,
        fed=count,
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

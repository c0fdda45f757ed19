"""Forwards over an explicit list of positions per sequence: what window and adaptive caches
plan."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Plan, Request, ragged


CHANGED = ConfigError(
    "cache: the sampler's alternative canvases change cached positions (e.g. the prompt under "
    "cfg_scale > 0); use cache=none"
)


def canvases(canvas: Canvas, request: Request) -> Int[np.ndarray, "entries canvas"]:
    """The canvases themselves, or the first branch of each, the second of each, and so on (absent
    ones hold -1)."""
    if request.branches is None:
        return canvas.tokens
    return request.branches.transpose(1, 0, 2).reshape(-1, canvas.capacity)


def rows_plan(
    canvas: Canvas,
    request: Request,
    kinds: Sequence[ForwardKind],
    rows: Sequence[np.ndarray],
    visible: Bool[np.ndarray, "batch slots"],
    write: Bool[np.ndarray, "batch slots"],
    within: Literal["full"] | Bool[Tensor, "batch rows rows"] = "full",
) -> Plan:
    """Feeds the positions `rows` of each sequence, or of all its branches, under full attention.

    `visible`: stored slots that may be attended; `write`: fed slots that are kept. Raises
    `ConfigError` if a branch differs from its canvas where stored keys stand for it.
    """
    tokens = canvases(canvas, request)
    copies = len(tokens) // canvas.batch
    fed, keep = [], []
    for entry, own in enumerate(tokens):
        row = entry % canvas.batch
        fed.append(rows[row][: None if own[0] >= 0 else 0])
        keep.append(write[row, fed[-1]])
        if request.branches is not None and own[0] >= 0:
            stored = visible[row, : canvas.length[row]].copy()
            stored[rows[row][rows[row] < stored.size]] = False
            if (own[: stored.size] != canvas.tokens[row, : stored.size])[stored].any():
                raise CHANGED
    if isinstance(within, Tensor):
        within = within.repeat(copies, 1, 1)
    wanted = np.tile(request.positions, (copies, 1))
    return feed(kinds, tokens, fed, np.tile(visible, (copies, 1)), keep, within, wanted)


def feed(
    kinds: Sequence[ForwardKind],
    tokens: Int[np.ndarray, "entries canvas"],
    fed: Sequence[np.ndarray],
    visible: Bool[np.ndarray, "entries slots"],
    keep: Sequence[np.ndarray],
    within: Literal["full", "causal"] | Bool[Tensor, "entries rows rows"],
    wanted: Int[np.ndarray, "entries wanted"] | None,
) -> Plan:
    """One forward in which each entry feeds the positions `fed` in this physical order; `kinds` has
    one value per sequence."""
    slots = ragged(fed, -1)
    kept = ragged(keep, 0).astype(bool)
    place = np.maximum(slots, 0)
    count = (slots >= 0).sum(axis=1).reshape(-1, len(kinds)).sum(axis=0)
    return Plan(
        kind=kinds[0] if len(set(kinds)) == 1 else tuple(kinds),
        tokens=torch.from_numpy(np.maximum(np.take_along_axis(tokens, place, axis=1), 0)),
        positions=torch.from_numpy(place),
        slots=torch.from_numpy(slots),
        fed=count,
        padded=bool((slots < 0).any()),
        visible=torch.from_numpy(visible) if visible.any() else None,
        within=within,
        write=torch.from_numpy(kept) if kept.any() else "none",
        logits_for=None if wanted is None else torch.from_numpy(wanted),
    )

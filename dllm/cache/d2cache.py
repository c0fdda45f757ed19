"""d2Cache (arXiv 2509.23094): rows chosen anew in every step, by certainty and by attention.

All keys and values are computed once. Each later forward feeds, and replaces, (1) the `current_k`
masks with the best confidence x certainty density, those of the block first, (2) what was decided
in the step before, (3) the positions that the last forward's attention rollout leads back to: a
nucleus of `rollout_p` of its column sums, (4) with `inflate_w`, unselected positions between
selected ones whose gap is at most that wide. Nothing is ever refreshed as a whole.

As in the official code the confidences are those of the first forward for ever (`fresh_confidence`
updates those of fed rows, as intended) and the search range is measured in masks of the block left
before the step (`search: block` measures in blocks, as intended). Its topping up of short rows to
the batch's longest is left out: a sequence's tokens do not depend on its neighbours.

Settings [code]: current_k 32, sigma 10, rollout_p 0.1, inflate_w 0 with sampler=certainty_prior;
inflate_w 4 with blocks or thresholds. Needs full attention.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from dllm.cache.memory import PerSequence
from dllm.cache.rows import rows_plan
from dllm.errors import ConfigError
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.density import certainty_density
from dllm.step.plan import ForwardKind, Need, Plan, Request, Taps, pad_positions


Positions = Bool[np.ndarray, "canvas"]


@dataclass
class _Notes:
    """One sequence between two forwards."""

    confidence: Float[np.ndarray, "canvas"]
    masked: Positions
    """Masks that the last forward met."""
    block: Positions
    """Those of its block."""
    taps: Taps = field(default_factory=Taps)
    """The last forward's."""
    row: int = -1
    """The sequence's row in it; -1 = it has not been fed yet."""


@dataclass(kw_only=True)
class D2Cache:
    current_k: int
    """Masks fed per step (>= 1)."""
    sigma: float
    """Reach of a decided position in the certainty density (> 0)."""
    rollout_p: float
    """Share of the attention rollout whose positions are fed, in [0, 1]."""
    inflate_w: int
    """Widest gap between fed positions that is filled (>= 0)."""
    fresh_confidence: bool
    search: Literal["masks", "block"]
    audit: bool
    """Compare every step with a cache-free forward, which is not counted."""

    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"full"})

    def __post_init__(self) -> None:
        for name, low in (("current_k", 1), ("inflate_w", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"cache.{name}={getattr(self, name)} must be >= {low}")
        if not self.sigma > 0:
            raise ConfigError(f"cache.sigma={self.sigma} must be > 0")
        if not 0 <= self.rollout_p <= 1:
            raise ConfigError(f"cache.rollout_p={self.rollout_p} is outside [0, 1]")

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        return frozenset()

    def begin(self, spec: ModelSpec) -> None:
        self._shift = spec.logit_shift
        self._notes = PerSequence(self._fresh)

    def _fresh(self, canvas: Canvas, row: int) -> _Notes:
        none = np.zeros(canvas.capacity, dtype=bool)
        return _Notes(np.zeros(canvas.capacity), none, none)

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        if request.branches is not None:
            raise ConfigError(
                "cache=D2Cache follows one canvas per sequence; the sampler asks for alternative "
                "ones (cfg_scale > 0, drafts): use cache=none"
            )
        notes, masked = self._notes.rows(canvas), canvas.masked()
        density = certainty_density(canvas, self.sigma)
        index = np.arange(canvas.capacity)
        rows, kinds = [], []
        asked = np.zeros(masked.shape, dtype=bool)
        for row, note in enumerate(notes):
            self._collect(note)
            if note.row < 0:
                rows.append(np.arange(canvas.length[row]))
                kinds.append(ForwardKind.REFRESH)
                asked[row] = masked[row]
            else:
                rows.append(self.select(canvas, row, note, masked[row], density[row]).nonzero()[0])
                kinds.append(ForwardKind.STEP)
                asked[row] = masked[row] & self.fresh_confidence
            inside = (index >= canvas.block_start[row]) & (index < canvas.block_end[row])
            note.masked, note.block, note.row = masked[row], masked[row] & inside, row
        taps = Taps(torch.from_numpy(pad_positions(asked)) if asked.any() else None, rollout=True)
        for note in notes:
            note.taps = taps
        everything = np.ones((canvas.batch, store.slots), dtype=bool)
        plan = rows_plan(canvas, request, kinds, rows, everything, everything)
        return [replace(plan, taps=taps)]

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []

    def _collect(self, note: _Notes) -> None:
        """Confidences that the last forward brought."""
        taps = note.taps
        if note.row < 0 or taps.confidence is None or taps.confidence_of is None:
            return
        found = taps.confidence[note.row].double().cpu().numpy()
        at = taps.confidence_of[note.row].cpu().numpy()
        known = (at >= 0) & (found > 0)
        note.confidence[at[known]] = found[known]

    def select(
        self, canvas: Canvas, row: int, note: _Notes, masked: Positions, density: np.ndarray
    ) -> Positions:
        """Positions to feed after the step that left `masked`."""
        length = int(canvas.length[row])
        score = note.confidence * density
        score = score + score.max() * note.block
        inside = masked & self._range(canvas, row, note, masked)
        ranked = np.argsort(-np.where(inside, score, -np.inf), kind="stable")
        selected = np.zeros_like(masked)
        selected[ranked[: self.current_k]] = True
        selected &= inside
        if self._shift:
            selected = np.roll(selected, -self._shift)
        selected |= note.masked & ~masked
        assert note.taps.influence is not None, "filled by the forward before"
        influence = note.taps.influence[note.row].cpu().numpy()[:length]
        chosen = nucleus(influence, self.rollout_p, ~selected[:length])
        selected[:length] |= chosen
        return inflate(selected, self.inflate_w)

    def _range(self, canvas: Canvas, row: int, note: _Notes, masked: Positions) -> Positions:
        """From the block to the end of the stretch that holds the current_k-th mask left."""
        start, length = int(canvas.prompt_length[row]), int(canvas.length[row])
        left = masked.nonzero()[0] - start
        first = int(note.block.argmax()) - start
        size = int(note.block.sum())
        if self.search == "block":
            first = int(canvas.block_start[row]) - start
            size = int(canvas.block_end[row] - canvas.block_start[row])
        last = length - start - 1
        if left.size >= self.current_k and size:
            last = (int(left[self.current_k - 1]) // size + 1) * size - 1
        index = np.arange(canvas.capacity) - start
        return (index >= first) & (index <= last)


def nucleus(
    share: Float[np.ndarray, "slots"], p: float, open_slots: Bool[np.ndarray, "slots"]
) -> Bool[np.ndarray, "slots"]:
    """The largest open shares while their sum stays <= p of the whole; always the largest one."""
    order = np.argsort(-np.where(open_slots, share, -np.inf), kind="stable")
    reached = np.cumsum(np.where(open_slots, share, 0)[order]) / share[open_slots].sum()
    kept = reached <= p
    kept[:1] = True
    chosen = np.zeros_like(open_slots)
    chosen[order[kept]] = True
    return chosen & open_slots


def inflate(selected: Positions, width: int) -> Positions:
    """Also every position whose distances to the next selected ones on both sides add up to at most
    `width`."""
    at = selected.nonzero()[0]
    out = selected.copy()
    for left, right in pairwise(at):
        if right - left <= width:
            out[left:right] = True
    return out

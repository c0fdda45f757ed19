"""dKV-Cache (arXiv 2505.15781): a token's keys and values are kept one step after it was decided.

Right before and after its decision a token's keys and values are unstable. `decode`, per block
(everything is dropped at its start): steps 0, 1 and every `refresh_every`-th are full; another
step i feeds all positions but those decided before step i-1 and attends to these in the store;
what the step before decided is fed once more and kept. `prefill`: the prompt alone is kept, from
the first forward on, and never refreshed. Models whose row p predicts p + 1 (Dream) keep row p
once token p + 1 is decided (`next`, official `un`) or both are (`both`, official `un_right`). The
official `right` (token p alone) is left out: the row that predicts a mask behind would not be fed.

Settings [code]: LLaDA refresh_every 8; Dream 16, `next` (4 in its batch script). The greedy variant
(random order, drawn in advance) is left out. Needs full attention; approximate in all but full
steps.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool

from dllm.cache.memory import PerSequence
from dllm.cache.rows import rows_plan
from dllm.errors import ConfigError
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Need, Plan, Request


Positions = Bool[np.ndarray, "canvas"]


@dataclass
class _Kept:
    """Positions whose keys and values are stored."""

    positions: Positions


@dataclass(kw_only=True)
class DKVCache:
    variant: Literal["decode", "prefill"]
    refresh_every: int
    """Steps of a block between two full forwards (>= 1), of `decode`."""
    shifted_rows: Literal["next", "both"]
    """Which token of a shifted model's row must be decided."""
    audit: bool
    """Compare every step with a cache-free forward, which is not counted."""

    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"full"})

    def __post_init__(self) -> None:
        if self.refresh_every < 1:
            raise ConfigError(f"cache.refresh_every={self.refresh_every} must be >= 1")

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        if self.variant == "prefill":
            return frozenset({"opening_logits", "block_logits", "all_logits", "hypotheses"})
        # A shifted model's row is kept although its own token may still be a mask.
        open_rows = spec.logit_shift and self.shifted_rows == "next"
        return frozenset({"opening_logits", *(() if open_rows else ("hypotheses",))})

    def begin(self, spec: ModelSpec) -> None:
        self._shift = spec.logit_shift
        self._kept = PerSequence(lambda canvas, row: _Kept(np.zeros(canvas.capacity, dtype=bool)))

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        full = self.full(canvas)
        index = np.arange(canvas.capacity)
        rows, kinds = [], []
        visible = np.zeros((canvas.batch, store.slots), dtype=bool)
        write = np.zeros((canvas.batch, store.slots), dtype=bool)
        for row, kept in enumerate(self._kept.rows(canvas)):
            inside = index < canvas.length[row]
            stored = kept.positions & inside & ~full[row]
            # What was remasked since is fed again.
            stored &= self._stable(canvas, row)
            rows.append((inside & ~stored).nonzero()[0])
            kinds.append(ForwardKind.REFRESH if full[row] else ForwardKind.STEP)
            visible[row, : canvas.capacity] = stored
            keep = self._stable(canvas, row)
            write[row, : canvas.capacity] = keep & ~stored
            kept.positions = keep
        store.invalidate(torch.from_numpy(full)[:, None])
        return [rows_plan(canvas, request, kinds, rows, visible, write)]

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []

    def full(self, canvas: Canvas) -> Bool[np.ndarray, "batch"]:
        """Sequences whose step feeds everything."""
        if self.variant == "prefill":
            return canvas.step == 0
        step = canvas.step_in_block
        return (step <= 1) | (step % self.refresh_every == 0)

    def _stable(self, canvas: Canvas, row: int) -> Positions:
        """Positions whose keys and values are worth keeping now."""
        index = np.arange(canvas.capacity)
        if self.variant == "prefill":
            return index < canvas.prompt_length[row] - self._shift
        decided = ~canvas.masked()[row] & (index < canvas.length[row])
        if not self._shift:
            return decided
        following = np.append(decided[1:], False)
        return following if self.shifted_rows == "next" else following & decided

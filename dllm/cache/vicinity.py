"""Vicinity refresh (dInfer, arXiv 2510.08666): the block's neighbourhood is computed with it.

After `warmup_steps` full forwards of a sequence, the first forward in each block is full and keeps
all keys and values; the others feed [block start - prefix_look, block end + after_look), which
replaces its own slots, and attend to everything. Only the block's positions are predicted. dInfer's
update iteration decodes twice; here these are two steps, of a refresh and of the window.

Setting [code]: prefix_look = after_look = 16, warmup 4, block 64, gen_length 1,024, threshold 0.8;
class defaults 0 / 0 / 0, which is the dual cache. Needs full attention.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dllm.cache.memory import PerSequence
from dllm.cache.spans import span_plan
from dllm.errors import ConfigError
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Need, Plan, Request


@dataclass
class _Refreshed:
    """Block of a sequence's last refresh, and its step there."""

    block: int = -1
    step: int = 0


@dataclass(kw_only=True)
class VicinityCache:
    prefix_look: int
    """Positions before the block that are computed with it (>= 0)."""
    after_look: int
    """Positions behind the block that are computed with it (>= 0)."""
    warmup_steps: int
    """Full forwards at the start of a sequence (>= 0)."""
    refresh_every: int | None
    """Steps between two refreshes of a block (>= 1); null = one per block."""
    audit: bool
    """Compare every step with a cache-free forward, which is not counted."""

    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"full"})

    def __post_init__(self) -> None:
        for name in ("prefix_look", "after_look", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cache.{name}={getattr(self, name)} must be >= 0")
        if self.refresh_every is not None and self.refresh_every < 1:
            raise ConfigError(f"cache.refresh_every={self.refresh_every} must be >= 1")

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        return frozenset({"opening_logits", "block_logits", "hypotheses"})

    def begin(self, spec: ModelSpec) -> None:
        self._shift = spec.logit_shift
        self._refreshed = PerSequence(lambda canvas, row: _Refreshed())

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        warm = canvas.step < self.warmup_steps
        refresh = ~warm & [
            self._due(canvas, row, last) for row, last in enumerate(self._refreshed.rows(canvas))
        ]
        for row in refresh.nonzero()[0]:
            last = self._refreshed.rows(canvas)[row]
            last.block, last.step = int(canvas.block_index[row]), int(canvas.step[row])
        full = warm | refresh
        start, end = self.window(canvas)
        kinds = [ForwardKind.REFRESH if due else ForwardKind.STEP for due in refresh]
        write = np.repeat(~warm[:, None], store.slots, axis=1)
        return [
            span_plan(
                canvas,
                request,
                kinds,
                np.where(full, 0, start),
                np.where(full, canvas.length, end),
                store.slots,
                np.where(full, 0, canvas.length),
                write,
            )
        ]

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []

    def window(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """[start, end) fed by the steps within a block; a shifted model needs the row before it."""
        start = np.maximum(canvas.block_start - np.maximum(self.prefix_look, self._shift), 0)
        return start, np.minimum(canvas.block_end + self.after_look, canvas.length)

    def _due(self, canvas: Canvas, row: int, last: _Refreshed) -> bool:
        if last.block != canvas.block_index[row]:
            return True
        since = int(canvas.step[row]) - last.step
        return self.refresh_every is not None and since >= self.refresh_every

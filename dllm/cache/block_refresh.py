"""Fast-dLLM's schedule (arXiv 2505.22618), shared by its prefix and dual caches.

The first step of a block feeds the whole canvas and refreshes the store; the block's other steps
feed a part of it and attend to what is stored for the rest. Each sequence follows its own blocks:
in a ragged batch one forward may refresh some sequences and step others.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int

from dllm.cache.spans import span_plan
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Need, Plan, Request


@dataclass(kw_only=True)
class BlockRefresh(ABC):
    """Full forward at the first step of a block, part of the canvas afterwards."""

    shifted_rows: Literal["previous", "own"]
    """Models whose row i-1 predicts position i (Dream): feed the row before the block too
    (`previous`), or the block's own rows only (`own`, official: the first position of a block is
    then predicted by the full forward alone and must be committed there, see
    `sampler=opening`)."""
    legacy_idle_forward: bool
    """A block completed by its full forward is forwarded once more (Fast-dLLM before July 2025)."""
    audit: bool
    """Compare every step with a cache-free forward, which is not counted."""

    _lead: int = field(init=False, default=0)
    """Rows fed before the block."""

    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"full"})

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        found: set[Need] = {"opening_logits", "block_logits", "hypotheses"}
        if spec.logit_shift and self.shifted_rows == "own":
            # No later step predicts the block's first position.
            found.remove("block_logits")
        return frozenset(found)

    def begin(self, spec: ModelSpec) -> None:
        self._lead = spec.logit_shift if self.shifted_rows == "previous" else 0

    @abstractmethod
    def step_span(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """[start, end) fed by the later steps of each sequence's block, before any shift."""

    @abstractmethod
    def visible_to(self, canvas: Canvas) -> Int[np.ndarray, "batch"]:
        """Stored slots below this bound are attended by those steps."""

    @abstractmethod
    def written(
        self, canvas: Canvas, refresh: np.ndarray
    ) -> Literal["all"] | Bool[np.ndarray, "batch slots"]:
        """Slots whose keys and values are kept."""

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        refresh = canvas.step_in_block == 0
        if refresh.any():
            # What was cut off behind a shortened answer must not be attended any more.
            store.invalidate(torch.from_numpy(refresh)[:, None])
        return [self._feed(canvas, request, refresh, store.slots)]

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        assert store is not None
        idle = np.zeros(canvas.batch, dtype=bool)
        idle[rows] = canvas.step_in_block[rows] == 1
        if not self.legacy_idle_forward or not idle.any():
            return []
        return [self._feed(canvas, None, ~idle, store.slots, only=idle)]

    def _feed(
        self,
        canvas: Canvas,
        request: Request | None,
        refresh: Bool[np.ndarray, "batch"],
        slots: int,
        only: Bool[np.ndarray, "batch"] | None = None,
    ) -> Plan:
        start, end = self.step_span(canvas)
        start = np.where(refresh, 0, start - self._lead)
        end = np.where(refresh, canvas.length, end)
        write = self.written(canvas, refresh)
        if only is not None:
            end = np.where(only, end, start)
        kinds = [ForwardKind.REFRESH if r else ForwardKind.STEP for r in refresh]
        visible_to = np.where(refresh, 0, self.visible_to(canvas))
        return span_plan(canvas, request, kinds, start, end, slots, visible_to, write)

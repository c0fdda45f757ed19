"""Window-Diffusion's cache (arXiv 2601.20332): masks far ahead are not attended, a phase at a time.

A phase of `refresh_cycle` steps begins with a refresh that computes and keeps the context. Its
other steps feed the wanted positions and what was decided a moment ago (its keys and values are
unstable yet); they attend to the decided positions and to the first `outer_window` masks as the
refresh left them. Masks beyond are invisible. The official LLaDA and Dream codes are two algorithms
of that name:

On LLaDA (`cache=window`) a refresh feeds the whole canvas, a step the wanted positions, and what
the refresh decided is fed once more. On Dream (`cache=window_dream`) a refresh feeds decided
positions and the outer window only, a step the span from the refresh's first mask to the next
unwanted one, and what the refresh decided is fed to the end of the phase.

A shortened answer (early stop) is refreshed in every step. Goes with sampler=window, which picks
the wanted positions; any other sampler may use it. Settings [code]: LLaDA 64 masks, phase 32; Dream
128 (of which 127 masks), phase 32 (HumanEval 40).
"""

from dataclasses import dataclass, field
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
from dllm.step.plan import ForwardKind, Need, Plan, Request, ragged


Positions = Bool[np.ndarray, "canvas"]


@dataclass
class _Phase:
    """What one sequence's refresh left."""

    refreshed: Positions
    """Masked positions the refresh met."""
    settled: Positions | None = None
    """Masked positions after the refresh's decision."""
    visible: Positions = field(default_factory=lambda: np.zeros(0, dtype=bool))


@dataclass(kw_only=True)
class WindowCache:
    outer_window: int
    """Masks that are attended, from the first one on (>= 1)."""
    refresh_cycle: int
    """Steps of a phase, its refresh included (>= 1)."""
    refresh_scope: Literal["all", "window"]
    """What a refresh feeds: the whole canvas, or decided positions and the outer window."""
    step_rows: Literal["set", "span"]
    """What the other steps feed: wanted and transient positions, or everything between, too."""
    refreshed_tokens: Literal["once", "phase"]
    """How long what the refresh decided is fed again."""
    audit: bool
    """Compare every step with a cache-free forward, which is not counted."""

    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"full"})

    def __post_init__(self) -> None:
        for name in ("outer_window", "refresh_cycle"):
            if getattr(self, name) < 1:
                raise ConfigError(f"cache.{name}={getattr(self, name)} must be >= 1")

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        if self.refresh_scope == "window":
            # A refresh leaves out the masks beyond the outer window.
            return frozenset({"hypotheses"})
        return frozenset({"opening_logits", "block_logits", "all_logits", "hypotheses"})

    def begin(self, spec: ModelSpec) -> None:
        self._shift = spec.logit_shift
        self._phases = PerSequence(lambda canvas, row: _Phase(canvas.masked()[row]))

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        phases, masked = self._phases.rows(canvas), canvas.masked()
        refresh = self.refreshes(canvas)
        rows, kinds = [], []
        visible = np.zeros((canvas.batch, store.slots), dtype=bool)
        for row, phase in enumerate(phases):
            wanted = request.positions[row][request.positions[row] >= 0]
            if refresh[row]:
                phase.refreshed, phase.settled = masked[row], None
                rows.append(self.context(canvas, row))
                kinds.append(ForwardKind.REFRESH)
                continue
            fed = self.fed(phase, wanted, masked[row], int(canvas.length[row]))
            if phase.settled is None:
                phase.settled = masked[row]
                phase.visible = self._visible(canvas, row)
            visible[row, : canvas.capacity] = phase.visible
            rows.append(fed)
            kinds.append(ForwardKind.STEP)
        if refresh.any():
            store.invalidate(torch.from_numpy(refresh)[:, None])
        write = np.ones((canvas.batch, store.slots), dtype=bool)
        return [
            rows_plan(
                canvas, request, kinds, rows, visible, write, self._within(rows, visible, refresh)
            )
        ]

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []

    def refreshes(self, canvas: Canvas) -> Bool[np.ndarray, "batch"]:
        """Sequences of which this step begins a phase."""
        asked = np.array([prompt.gen_length for prompt in canvas.prompts])
        cut = canvas.length < canvas.prompt_length + asked
        return (canvas.step % self.refresh_cycle == 0) | cut

    def context(self, canvas: Canvas, row: int) -> np.ndarray:
        """Positions that a refresh feeds."""
        index = np.arange(canvas.length[row])
        if self.refresh_scope == "all":
            return index
        masked = canvas.masked()[row][: index.size]
        return index[~masked | (masked.cumsum() <= self.outer_window)]

    def fed(self, phase: _Phase, wanted: np.ndarray, masked: Positions, length: int) -> np.ndarray:
        """Positions that a step within the phase feeds."""
        rows = np.zeros(masked.size, dtype=bool)
        rows[wanted] = True
        rows[wanted - self._shift] = True
        first_step = phase.settled is None
        settled = phase.refreshed if phase.settled is None else phase.settled
        since = phase.refreshed if first_step or self.refreshed_tokens == "phase" else settled
        rows |= since & ~masked
        if self.step_rows == "set":
            return rows.nonzero()[0]
        ahead = masked.copy()
        ahead[wanted] = False
        start = int(phase.refreshed.argmax())
        start = min(start, int(rows.argmax())) if rows.any() else start
        last = int(wanted.max(initial=start))
        beyond = ahead[last:length].nonzero()[0]
        return np.arange(start, last + beyond[0] if beyond.size else length)

    def _visible(self, canvas: Canvas, row: int) -> Positions:
        """What the rest of the phase may attend to."""
        masked = canvas.masked()[row]
        inside = np.arange(canvas.capacity) < canvas.length[row]
        if self.refresh_scope == "window":
            # Nothing else was stored; rows that slide beyond it join.
            return inside
        return inside & (~masked | (masked.cumsum() <= self.outer_window))

    def _within(
        self, rows: list[np.ndarray], visible: Bool[np.ndarray, "batch slots"], refresh: np.ndarray
    ):
        """A fed row outside the visible set is a key for none, not even for itself."""
        keys = [
            np.ones(fed.size, dtype=bool) if refresh[row] else visible[row, fed]
            for row, fed in enumerate(rows)
        ]
        if all(flags.all() for flags in keys):
            return "full"
        seen = torch.from_numpy(ragged(keys, 0).astype(bool))
        return seen[:, None, :].expand(-1, seen.shape[1], -1)

"""KLASS (arXiv 2511.05664): commit what is confident and has stopped moving.

Rule: a candidate is ready if KL(p_now || p_previous) < kl_threshold in the last `history` steps and
its confidence > threshold (strict; `inclusive` for Dream). All ready positions are committed;
without any, the step's static quota of most confident ones. Before step index history - 1 of a
block nothing is ready. Against a position never predicted before, KL is about 27 (zeros with 1e-12
added). Of the ready positions the authors also try a single one (`unmask: max_conf`, `min_kl`,
`random`). History crosses block borders, so the next block's positions are predicted along with the
current one's. With steps < gen_length a few ready positions in place of a larger quota leave masks
in a block whose steps are over: they are decoded further (`masks_left: decode`) or, as the official
code does, left for good (`leave`), which fails the answer. Softmax and KL in float64.

Authors' settings (gen_length = steps = 256, history 2), threshold / KL: LLaDA-8B-Instruct, block
64: GSM8K 0.6 / 0.015, MATH 0.6 / 0.01, HumanEval 0.9 / 0.01, MBPP 0.7 / 0.01. Dream-Instruct, no
blocks (`klass_dream`): 0.9 / 0.001, 0.9 / 0.005, 0.8 / 0.001, 0.9 / 0.001. Needs full forwards:
with a cache "previous step" loses its meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.plan import Need, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.schedule import Value, current
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import in_unit_interval, not_below
from samplers.parts.quota import StaticQuota, block_steps


_POSITIONS, _PROBABILITIES, _KL = "klass_positions", "klass_probabilities", "klass_kl"
_FLOOR = 1e-12
_CHUNK = 4


@dataclass(frozen=True, kw_only=True)
class Klass(StaticQuota):
    threshold: Value
    """Confidence above which a position may be ready, in [0, 1]."""
    kl_threshold: float
    """Divergence below which a position counts as stable (nats, >= 0)."""
    history: int
    """Successive steps in which it has to be stable (>= 1)."""
    inclusive: bool
    """Confidence >= threshold instead of >."""
    unmask: Literal["all", "max_conf", "min_kl", "random"]
    """Which of the ready positions are committed: all, or the most confident, the most stable, any
    one of them."""
    masks_left: Literal["decode", "leave"]
    """What becomes of a block's masks once its share of `steps` is over."""

    needs: ClassVar[frozenset[Need]] = frozenset({"fresh_logits"})

    def __post_init__(self) -> None:
        in_unit_interval("threshold", self.threshold)
        not_below("kl_threshold", self.kl_threshold, 0)
        not_below("history", self.history, 1)

    def fields(self) -> tuple[StateField, ...]:
        return (
            *super().fields(),
            StateField(_POSITIONS, (0,), torch.int64, fill=-1),
            StateField(_PROBABILITIES, (0, 0)),
            StateField(_KL, ("canvas", self.history), torch.float64),
        )

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        index = np.arange(canvas.capacity)
        reach = 2 * canvas.block_end - canvas.block_start
        ahead = (index >= canvas.block_end[:, None]) & (index < reach[:, None])
        return Request(pad_positions(eligible | (ahead & canvas.masked())))

    def observe(self, view: View, state: SamplerState) -> None:
        super().observe(view, state)
        p = scores.cast(view.logits, self.conf_dtype).softmax(dim=-1)
        batch, row = view.candidates.nonzero(as_tuple=True)
        at = view.positions[batch, row]
        kl = self._divergence(p, batch, row, self._previous_row(view, state, batch, at), state)
        history = state[_KL]
        history[batch, at] = torch.cat((history[batch, at, 1:], kl.double()[:, None]), dim=-1)
        # Kept by reference: nothing of [canvas, vocab] size is ever copied.
        state[_POSITIONS], state[_PROBABILITIES] = view.positions, p

    @staticmethod
    def _previous_row(view: View, state: SamplerState, batch: Tensor, at: Tensor) -> Tensor:
        """Row of each candidate in the previous prediction; -1 where it was not predicted."""
        past = state[_POSITIONS]
        where = past.new_full((len(past), view.canvas.capacity + 1), -1)
        order = torch.arange(past.shape[1], device=past.device).expand_as(past)
        where.scatter_(1, past.where(past >= 0, view.canvas.capacity), order)
        return where[batch, at]

    @staticmethod
    def _divergence(
        p: Float[Tensor, "batch rows vocab"],
        batch: Int[Tensor, "candidates"],
        row: Int[Tensor, "candidates"],
        previous: Int[Tensor, "candidates"],
        state: SamplerState,
    ) -> Float[Tensor, "candidates"]:
        """KL(p_now || p_previous) of each candidate, against zeros where there is no previous."""
        past, found = state[_PROBABILITIES], []
        # A few rows at a time: temporaries that stay in cache are twice as fast as whole blocks.
        for b, now_at, then_at in zip(
            batch.split(_CHUNK), row.split(_CHUNK), previous.split(_CHUNK), strict=True
        ):
            now = p[b, now_at]
            if past.shape[1]:
                then = past[b, then_at.clamp(min=0)].masked_fill_((then_at < 0)[:, None], 0)
            else:
                then = torch.zeros_like(now)
            ratio = (now + _FLOOR).div_(then.add_(_FLOOR))
            found.append(ratio.log_().mul_(now).sum(dim=-1))
        return torch.cat(found) if found else p.new_zeros(0)

    def ready(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        """Candidates that are confident and stable."""
        index = view.positions.clamp(min=0)[..., None].expand(-1, -1, self.history)
        stable = (state[_KL].gather(1, index) < self.kl_threshold).all(dim=-1)
        stable = stable & view.column(view.canvas.step_in_block >= self.history - 1)
        limit = current(self.threshold, view, score)
        sure = score >= limit if self.inclusive else score > limit
        return view.candidates & stable & sure

    def marks(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Mapping[str, Bool[Tensor, "batch rows"]]:
        return {"ready": self.ready(score, view, state)}

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        ready = self.ready(score, view, state)
        quota = super().choose(score, view, state)
        if self.unmask == "max_conf":
            ready = scores.best(score, ready)
        elif self.unmask == "min_kl":
            index = view.positions.clamp(min=0)
            ready = scores.best(-state[_KL][..., -1].gather(1, index), ready)
        elif self.unmask == "random":
            ready = scores.best(view.uniform(), ready)
        return torch.where(ready.any(dim=1, keepdim=True), ready, quota)

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        if canvas.masked_in_block(row) == 0:
            return True
        share = block_steps(canvas, self.region, self.steps)[row]
        return self.masks_left == "leave" and bool(canvas.step_in_block[row] >= share)

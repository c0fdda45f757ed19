"""LLaDA2.1 editing: committed tokens of the block are overwritten when the model changes its mind.

Selection as `llada2` (threshold when passed, else one per step). In addition every decided,
generated position of the block whose new arg-max differs from its token with confidence >
edit_threshold (strict) is overwritten. After the last mask up to `max_passes` editing passes
follow, until one changes nothing. Known from a third party's code only [re-implementation]; batch
1 there, row-wise here.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool

from dllm.step.canvas import Canvas
from dllm.step.decision import Decision, HostDecision
from dllm.step.plan import Need, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.schedule import Value, current
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import in_unit_interval, not_below
from samplers.sdar import DynamicQuota


_PASSES, _CHANGED, _MASKED = "edit_passes", "edit_changed", "edit_masked"


@dataclass(frozen=True, kw_only=True)
class LLaDA2Edit(DynamicQuota):
    edit_threshold: Value
    """Confidence above which a committed token is overwritten, in [0, 1]."""
    max_passes: int
    """Editing passes after the block's last mask (>= 0)."""

    needs: ClassVar[frozenset[Need]] = frozenset({"block_logits"})

    def __post_init__(self) -> None:
        super().__post_init__()
        in_unit_interval("edit_threshold", self.edit_threshold)
        not_below("max_passes", self.max_passes, 0)

    def fields(self) -> tuple[StateField, ...]:
        return (
            *super().fields(),
            StateField(_PASSES, dtype=torch.int64, reset="block"),
            StateField(_CHANGED, dtype=torch.bool, fill=True, reset="block"),
            StateField(_MASKED, dtype=torch.bool, fill=True, reset="block"),
        )

    def max_steps(self, positions: int) -> int:
        # Every block holds at least one position; blocks may reach beyond the answer.
        return positions * (2 + self.max_passes)

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        answer = np.arange(canvas.capacity) >= canvas.prompt_length[:, None]
        return Request(pad_positions(canvas.in_block() & answer))

    def select(self, view: View, state: SamplerState) -> Decision:
        decision = super().select(view, state)
        sure = decision.score > current(self.edit_threshold, view, decision.score)
        edit = view.decided & sure & (decision.tokens != view.tokens)
        return replace(decision, edit=edit)

    def committed(self, canvas: Canvas, decision: HostDecision, state: SamplerState) -> None:
        for row, changes in enumerate(decision.rows):
            # A pass counts once the block was complete before it.
            state[_PASSES][row] += not state[_MASKED][row]
            state[_CHANGED][row] = changes.edit_positions.size + changes.commit_positions.size > 0
            state[_MASKED][row] = canvas.masked_in_block(row) > 0

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        if not super().block_done(canvas, row, state):
            return False
        return bool(state[_PASSES][row] >= self.max_passes or not state[_CHANGED][row])

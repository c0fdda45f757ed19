"""dInfer's hierarchical decoding with re-masking (arXiv 2510.08666), as far as it can be stated.

Every position of the block whose new arg-max has confidence < remask_threshold is low, decided ones
too. Candidates are the masks and the low decided positions; the selection is `dinfer_hierarchy`'s
over them, filled up with the next best to (number of low decided positions) + 1. Low decided
positions that are not selected are masked again, selected ones overwritten: every step nets at
least one. The shipped driver passes arguments in another order and cannot run it, so that there is
nothing to conform to. remask_threshold 0.4 [code].
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Need, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.schedule import Value, current
from dllm.step.state import SamplerState
from samplers.dinfer_hierarchy import DInferHierarchy
from samplers.parts.checks import in_unit_interval


@dataclass(frozen=True, kw_only=True)
class HierarchyRemask(DInferHierarchy):
    remask_threshold: Value
    """Confidence of the new arg-max below which a committed token is doubted, in [0, 1]."""

    needs: ClassVar[frozenset[Need]] = frozenset({"block_logits"})

    def __post_init__(self) -> None:
        super().__post_init__()
        in_unit_interval("remask_threshold", self.remask_threshold)

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        answer = np.arange(canvas.capacity) >= canvas.prompt_length[:, None]
        return Request(pad_positions(canvas.in_block() & answer))

    def select(self, view: View, state: SamplerState) -> Decision:
        view = self.transform(view, state)
        tokens = self.proposer.propose(view)
        score = self.score(view, tokens)
        # Without a mask left there is nothing to decide: the block ends.
        open_rows = view.candidates.any(dim=1, keepdim=True)
        doubt = score < current(self.remask_threshold, view, score)
        low = view.decided & doubt & open_rows
        pool = view.candidates | low
        picked = self.pick(score, pool, view)
        least = low.sum(dim=1) + 1
        picked = picked | scores.top_k(score.masked_fill(picked, 2.0), pool, least)
        return Decision(
            picked & view.candidates, tokens, score, remask=low & ~picked, edit=low & picked
        )

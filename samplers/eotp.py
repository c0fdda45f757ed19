"""End-of-Text Prediction (Learn2PD, arXiv 2509.25188): cut the answer where its end is predicted.

Rule: after each commit, if masked positions were predicted as the end token, the sequence is cut
after one of them: the leftmost among those that the rule accepted by itself (its "accepted" mark,
as of `learn2pd`), else the most confident one. The end itself is not committed: position p* may
stay masked and be predicted again. A prediction suffices, however unsure: the cut is irrevocable.

`zone`: without cache the official code searches all masked positions of the sequence, with prefix
or dual cache those of the current block only. Works around any sampler; alone:
base=low_confidence, steps = gen_length.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool

from dllm.models.spec import ModelSpec
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.state import SamplerState
from samplers.parts.checks import free_length, in_vocabulary
from samplers.parts.wrapping import Wrapper


@dataclass(frozen=True, kw_only=True)
class EndOfTextPrediction(Wrapper):
    zone: Literal["sequence", "block"]
    """Where a predicted end counts: all masked positions, or those of the current block."""
    end_ids: list[int] | None
    """Tokens that end the text; null = the model's padding end token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        free_length(self.base)
        object.__setattr__(self, "decides_length", True)

    def commits_ahead(self) -> bool:
        return True

    def check_model(self, spec: ModelSpec) -> None:
        super().check_model(spec)
        in_vocabulary("end_ids", self.end_ids, spec)

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        request = super().plan(canvas, eligible, state)
        if self.zone == "block":
            return request
        wanted = canvas.masked()
        batch, column = (request.positions >= 0).nonzero()
        wanted[batch, request.positions[batch, column]] = True
        return replace(request, positions=pad_positions(wanted))

    def select(self, view: View, state: SamplerState) -> Decision:
        decision = super().select(view, state)
        searched = view.candidates
        if self.zone == "sequence":
            searched = view.fresh & (view.tokens == view.canvas.mask_id)
        ends = self.end_ids or list(view.canvas.eos_ids[:1])
        predicted = searched & torch.isin(decision.tokens, view.positions.new_tensor(ends))
        accepted = decision.marks.get("accepted", torch.zeros_like(predicted)) & predicted
        length = view.column(view.canvas.length)[:, 0]
        if predicted.shape[1]:
            likeliest = scores.best(decision.score, predicted)
            cut = torch.where(likeliest, view.positions + 1, length[:, None]).amin(dim=1)
            leftmost = torch.where(accepted, view.positions + 1, length[:, None]).amin(dim=1)
            length = torch.where(accepted.any(dim=1), leftmost, cut)
        return replace(decision, length=length)

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        return super().block_done(canvas, row, state) or not canvas.masked()[row].any()

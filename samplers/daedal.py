"""DAEDAL (arXiv 2508.00819): the answer's length is found before and while it is decoded.

Rule: 1. From initial_length masks, `expansion` masks are appended, a forward each, until the end is
sure: end confidence (sum of p over the last eos_window predicted end tokens, divided by eos_window)
>= eos_threshold. Then eos_window / 2 end tokens, not masks, are appended (a step the paper does not
name). 2. In blocks: candidates with confidence > high_threshold are committed (strict), else the
best one; while the end's confidence is < expansion_threshold, the least confident mask left in the
block, if below low_threshold, becomes `expansion` masks, and what follows moves right.

gen_length bounds the growth; no early stop at an end token. Authors' settings (LLaDA-8B-Instruct):
initial 64, at most 2048, block 32, 0.9, 0.1, expansion 8, window 32, 0.5, 0.9. Needs every
prediction from the whole canvas: no cache.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm.step import scores
from dllm.step.decision import Decision
from dllm.step.prediction import View
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import in_unit_interval, not_below
from samplers.parts.flexible_length import FlexibleLength


@dataclass(frozen=True, kw_only=True)
class Daedal(FlexibleLength):
    low_threshold: float
    """Confidence below which a mask may be expanded, in [0, 1]."""
    eos_threshold: float
    """Confidence of the end that closes the first stage, in [0, 1]."""
    expansion_threshold: float
    """Confidence of the end from which nothing is expanded any more, in [0, 1]."""
    expansion: int
    """Masks added at a time (>= 1)."""

    may_commit_nothing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low_threshold", "eos_threshold", "expansion_threshold"):
            in_unit_interval(name, getattr(self, name))
        not_below("expansion", self.expansion, 1)

    def fields(self) -> tuple[StateField, ...]:
        return (*super().fields(), StateField("sized", dtype=torch.bool))

    def max_steps(self, positions: int) -> int:
        # A step lengthens the answer, commits a position or closes the first stage.
        return 2 * positions + 1

    def select(self, view: View, state: SamplerState) -> Decision:
        view = self.transform(view, state)
        tokens = self.proposer.propose(view)
        score = self.score(view, tokens)
        end = self.end_confidence(view)
        length, longest = view.column(view.canvas.length)[:, 0], self.longest(view)
        # Growing beyond the model's positions is asked for once, which marks the answer truncated.
        limit = torch.minimum(longest, view.column(view.canvas.limit)[:, 0])
        sized, room = state["sized"], limit - length
        growing = ~sized & (end < self.eos_threshold) & (room > 0)
        closing = ~sized & ~growing
        commit = self.choose(score, view, state) & sized[:, None]
        expands = sized & (end < self.expansion_threshold) & (room > 0)
        unsure = view.candidates & ~commit & (score < self.low_threshold) & expands[:, None]
        expanded = scores.best(-score, unsure) * room.clamp(max=self.expansion - 1)[:, None]
        added = self.expansion * growing + self.eos_window // 2 * closing + expanded.sum(dim=1)
        return Decision(
            commit,
            tokens,
            score,
            insert=expanded,
            length=torch.minimum(length + added, longest.where(growing, limit)),
            tail=torch.where(closing, view.canvas.eos_ids[0], -1),
            updates={"sized": sized | closing},
        )

"""Opening token of a block (Fast-dLLM on Dream, arXiv 2505.22618; likewise R2-dLLM and FreeDave).

A logit-shifted model predicts position i from row i-1. A cached step that feeds the block's own
rows can therefore not predict the block's first position, so the official code commits it from
the block's opening forward, unconditionally, and applies no other rule to that forward. The
following steps are those of `base`. Goes with cache.shifted_rows=own; cache.shifted_rows=previous
makes it unnecessary.
"""

from dataclasses import dataclass, replace

from dllm.step.decision import Decision
from dllm.step.prediction import View
from dllm.step.state import SamplerState
from samplers.parts.checks import free_commits
from samplers.parts.wrapping import Wrapper


@dataclass(frozen=True, kw_only=True)
class OpeningToken(Wrapper):
    def __post_init__(self) -> None:
        super().__post_init__()
        free_commits(self.base)

    def select(self, view: View, state: SamplerState) -> Decision:
        decision = super().select(view, state)
        opening = view.column(view.canvas.step_in_block == 0)
        first = view.candidates & (view.positions == view.column(view.canvas.block_start))
        # Where the first position is no candidate (an aligned block that starts inside the
        # prompt) the row before it was fed: nothing has to be forced.
        opening = opening & first.any(dim=1, keepdim=True)
        return replace(decision, commit=first.where(opening, decision.commit))

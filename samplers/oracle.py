"""Extremely Greedy Parallel (EGP), the oracle behind Learn2PD (arXiv 2509.25188): an upper bound.

Rule: commit every position of the block whose current arg-max equals the reference answer's
token; if the arg-maxes of the whole block are those of the step before, write the reference into
the block (anti-stall). The reference is the model's own finished answer under one token per step,
so that the bound is on filters that imitate that answer, not on accuracy. Its forwards are also
what a filter is trained on (`scripts.collect`): confidences and labels [arg-max = reference] of
all positions of the block.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Need, Sampler
from dllm.step.state import SamplerState, StateField
from samplers.parts.proposers import Greedy


@dataclass(frozen=True, kw_only=True)
class Oracle(Sampler):
    needs: ClassVar[frozenset[Need]] = frozenset({"reference", "block_logits"})
    may_commit_nothing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.proposer, Greedy):
            # A block stalls when the arg-maxes repeat; draws need not, and nothing bounds them.
            raise ConfigError(
                f"sampler.proposer={type(self.proposer).__name__} draws at random: use greedy"
            )

    def fields(self) -> tuple[StateField, ...]:
        proposals = (
            StateField(name, ("canvas",), torch.int64, fill=-1, reset="block")
            for name in ("proposed", "proposed_before")
        )
        return (*super().fields(), *proposals)

    def max_steps(self, positions: int) -> int:
        # A step that commits nothing repeats the forward before it, and the next one ends the
        # block.
        return 2 * positions

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        return Request(pad_positions(canvas.in_block()))

    def observe(self, view: View, state: SamplerState) -> None:
        super().observe(view, state)
        proposals = self.proposer.propose(self.transform(view, state))
        state["proposed_before"] = state["proposed"]
        state["proposed"] = view.on_canvas(proposals, state["proposed"])

    def select(self, view: View, state: SamplerState) -> Decision:
        at = view.positions.clamp(min=0)
        proposals = state["proposed"].gather(1, at)
        reference = self.reference(view).gather(1, at)
        own = view.positions >= 0
        stalled = ((proposals == state["proposed_before"].gather(1, at)) | ~own).all(dim=1)
        final = (proposals == reference) & own
        return Decision(
            commit=view.candidates & (final | stalled[:, None]),
            tokens=reference,
            # Padding has no proposal.
            score=self.score(view, proposals.masked_fill(~own, 0)),
            marks={"final": final},
        )

    def reference(self, view: View) -> Int[Tensor, "batch canvas"]:
        """Reference answers at their positions; shorter ones go on with the end token."""
        canvas = view.canvas
        out = np.full((canvas.batch, canvas.capacity), canvas.eos_ids[0], dtype=np.int64)
        for row, prompt in enumerate(canvas.prompts):
            start = int(canvas.prompt_length[row])
            answer = prompt.reference or ()
            out[row, start : start + len(answer)] = answer
        return torch.from_numpy(out).to(view.device)

"""Dystruct, a RECONSTRUCTION (arXiv 2605.09820): length, blocks and their order inferred together.

Rule: a window opens with one forward over a look-ahead of masks, whose predictions say where the
window ends and how it falls into blocks (`structure`); blocks are decoded in the order of their
energy, each in its own number of steps (`block_schedule`): candidates with confidence >=
threshold, always the best one, and with `quota` what the steps left demand. Then
edges are welded: unsure positions within `weld_radius` of a border are masked again and decoded in
weld_steps forwards, kept if their likelihood did not fall. The canvas grows window by window up to
gen_length; an end token ends it.

No public code exists. Known from the abstract [abstract]: inference of expansion length, boundaries
and schedule, Chinese-restaurant partitions, steps per block; from digests of the paper [second
hand]: Poisson length, Gibbs schedule, welding, 256 tokens and steps. Formulas, constants and this
procedure are ours [inferred]: never to be reported as the paper's method.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Need, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField
from samplers.dystruct.block_schedule import BlockSchedule
from samplers.dystruct.inferred_windows import InferredWindows
from samplers.dystruct.structure import Signals, Structure
from samplers.dystruct.window_decoding import Window, WindowState
from samplers.parts.checks import not_below
from samplers.parts.delimiters import Delimiters, resolved, token_ids


@dataclass(frozen=True, kw_only=True)
class Dystruct(Sampler):
    region: InferredWindows
    structure: Structure
    schedule: BlockSchedule
    delimiters: Delimiters
    """Tokens that end a unit of text."""
    delimiter_ids: list[int] | None
    """Token ids in place of `delimiters`; null = those of the texts."""
    threshold: float
    """Confidence from which a candidate is committed (inclusive); above 1 = quota alone."""
    quota: bool
    """Commit at least what a block's remaining steps demand."""
    weld_radius: int
    """Positions on each side of a border (>= 0); 0 = no welding."""
    weld_threshold: float
    """Confidence below which a position near a border is masked again."""
    weld_steps: int
    """Forwards of a weld (>= 1)."""
    max_forwards: int
    """Forwards after which what is left of the window is committed and the answer ends (>= 1)."""
    stop_at_end: bool
    """Cut the answer at the first end token of a finished window."""

    may_commit_nothing: ClassVar[bool] = True
    decides_length: ClassVar[bool] = True
    plans_commits: ClassVar[bool] = True

    needs: ClassVar[frozenset[Need]] = frozenset({"all_logits"})

    def __post_init__(self) -> None:
        not_below("weld_radius", self.weld_radius, 0)
        not_below("weld_steps", self.weld_steps, 1)
        not_below("max_forwards", self.max_forwards, 1)

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        if self.delimiter_ids is not None:
            return self
        found = token_ids(tokenizer, self.delimiters, "sampler.delimiters")
        return replace(self, delimiter_ids=found)

    def check_model(self, spec: ModelSpec) -> None:
        if self.structure.boundary_weight:
            resolved(self.delimiter_ids, self.delimiters, spec, "sampler.delimiters")

    def fields(self) -> tuple[StateField, ...]:
        return (*super().fields(), *WindowState.fields())

    def max_steps(self, positions: int) -> int:
        return self.max_forwards

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        index = np.arange(canvas.capacity)
        start = np.maximum(canvas.block_start - self.weld_radius, canvas.prompt_length)
        inside = (index >= start[:, None]) & (index < canvas.block_end[:, None])
        return Request(pad_positions(inside))

    def signals(self, view: View) -> Signals:
        canvas = view.canvas
        return Signals.of(view.logits, self.delimiter_ids or [], canvas.eos_ids, canvas.mask_id)

    def refine(self, view: View, state: SamplerState) -> np.ndarray | None:
        canvas = view.canvas
        opening = (canvas.step_in_block == 0).nonzero()[0]
        if not opening.size:
            return None
        ends = canvas.block_end.copy()
        view = self.transform(view, state)
        signals = self.signals(view)
        for row in opening:
            u, b, e = self._ahead(view, signals, int(row))
            expected = self.region.expected(float(state["instability"][row]))
            generator = canvas.generators[row]
            ends[row] = canvas.block_start[row] + self.structure.length(
                u, b, e, expected, generator
            )
        return ends

    def _ahead(self, view: View, signals: Signals, row: int) -> tuple[np.ndarray, ...]:
        """Instability, boundary and end of the positions from a window's start on."""
        ahead = view.positions[row].cpu().numpy() >= view.canvas.block_start[row]
        return tuple(s[row, ahead] for s in (signals.instability, signals.boundary, signals.end))

    def _blocks(self, view: View, signals: Signals, row: int) -> list[int]:
        """Lengths of the blocks of a window that opens; `refine` has set its end."""
        canvas = view.canvas
        u, b, _ = self._ahead(view, signals, row)
        length = int(canvas.block_end[row] - canvas.block_start[row])
        return self.structure.partition(u, b, length, canvas.generators[row])

    def select(self, view: View, state: SamplerState) -> Decision:
        view = self.transform(view, state)
        signals = self.signals(view)
        tokens = self.proposer.propose(view)
        positions, proposed = view.positions.cpu().numpy(), tokens.cpu().numpy()
        candidates = view.candidates.cpu().numpy()
        commit = np.zeros_like(candidates)
        remask, edit = commit.copy(), commit.copy()
        length = view.canvas.length.copy()
        stop = np.zeros(len(length), dtype=bool)
        memory = WindowState(state)
        for row in range(view.canvas.batch):
            window = Window(
                self,
                view.canvas,
                memory,
                row,
                positions[row],
                signals,
                self._refused(view, memory, row),
            )
            if view.canvas.step_in_block[row] == 0:
                window.open(self._blocks(view, signals, row))
            window.decide(candidates[row], proposed[row])
            commit[row], remask[row], edit[row] = window.commit, window.remask, window.edit
            proposed[row] = window.tokens
            if window.done:
                length[row], stop[row] = window.close()
        return Decision(
            self._tensor(commit, view),
            self._tensor(proposed, view),
            score=torch.as_tensor(signals.confidence, device=view.device),
            remask=self._tensor(remask, view),
            edit=self._tensor(edit, view),
            stop=self._tensor(stop, view),
            length=self._tensor(length, view),
            updates=memory.tensors(view.device),
        )

    def _refused(self, view: View, memory: WindowState, row: int) -> np.ndarray:
        """Positions where a constraint refuses what a weld masked again."""
        old = np.maximum(memory.old_token[row, view.positions[row].cpu().numpy()], 0)
        logits = view.logits[row].gather(1, self._tensor(old, view)[:, None])
        return logits[:, 0].isneginf().cpu().numpy()

    def _tensor(self, array: np.ndarray, view: View) -> Tensor:
        return torch.as_tensor(array, device=view.device)

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        return super().block_done(canvas, row, state) and not int(state["weld_left"][row])

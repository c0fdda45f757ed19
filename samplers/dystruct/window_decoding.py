"""Decoding of one Dystruct window: its blocks in their order, then its edges (reconstruction).

`WindowState` is the sampler's memory on the host; `Window` takes one sequence's decision and notes
it there. Nothing else is changed. All of it is [inferred].
"""

from itertools import pairwise
from math import ceil
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dllm.step.canvas import Canvas
from dllm.step.state import SamplerState, StateField
from samplers.dystruct.block_schedule import BlockSchedule
from samplers.dystruct.inferred_windows import InferredWindows
from samplers.dystruct.structure import Signals


class Rule(Protocol):
    """The options of `samplers.dystruct.sampler.Dystruct` that a window is decoded by."""

    @property
    def schedule(self) -> BlockSchedule: ...

    @property
    def threshold(self) -> float: ...

    @property
    def quota(self) -> bool: ...

    @property
    def weld_radius(self) -> int: ...

    @property
    def weld_threshold(self) -> float: ...

    @property
    def weld_steps(self) -> int: ...

    @property
    def max_forwards(self) -> int: ...

    @property
    def stop_at_end(self) -> bool: ...

    @property
    def region(self) -> InferredWindows: ...


class WindowState:
    """One array per field, a row per sequence; positions are absolute."""

    def __init__(self, state: SamplerState):
        fields = {field.name: state[field.name].cpu().numpy().copy() for field in self.fields()}
        self.block = fields["block"]  # number of each position's block in its window, -1 = none
        self.steps_left = fields["steps_left"]  # of each position's block
        self.current = fields["current"]
        self.instability = fields["instability"]  # mean of the window before, -1 = none
        self.conf, self.u = fields["conf"], fields["u"]  # of each position, at its commit
        self.weld_left = fields["weld_left"]
        self.old_token = fields["old_token"]  # what a weld masked again, -1 = nothing
        self.old_conf, self.old_u = fields["old_conf"], fields["old_u"]

    @staticmethod
    def fields() -> tuple[StateField, ...]:
        whole, number = torch.int64, torch.float64
        return (
            StateField("block", ("canvas",), whole, fill=-1, reset="block"),
            StateField("steps_left", ("canvas",), whole, reset="block"),
            StateField("current", (), whole, fill=-1, reset="block"),
            StateField("instability", (), number, fill=-1),
            StateField("conf", ("canvas",), number),
            StateField("u", ("canvas",), number),
            StateField("weld_left", (), whole, reset="block"),
            StateField("old_token", ("canvas",), whole, fill=-1, reset="block"),
            StateField("old_conf", ("canvas",), number, reset="block"),
            StateField("old_u", ("canvas",), number, reset="block"),
        )

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        return {
            field.name: torch.as_tensor(getattr(self, field.name), device=device)
            for field in self.fields()
        }


class Window:
    """One step of one sequence; `commit`, `remask` and `edit` are per row of the view."""

    def __init__(
        self,
        rule: Rule,
        canvas: Canvas,
        memory: WindowState,
        row: int,
        positions: np.ndarray,
        signals: Signals,
        refused: np.ndarray,
    ):
        """`refused`: positions of the view whose token from before a weld may not come back."""
        self.refused = refused
        self.rule, self.canvas, self.memory, self.row = rule, canvas, memory, row
        self.at = positions
        self.c, self.u = signals.confidence[row], signals.instability[row]
        self.start, self.end = int(canvas.block_start[row]), int(canvas.block_end[row])
        index = np.arange(canvas.capacity)
        self.decided = (canvas.tokens[row] != canvas.mask_id) | (index < canvas.prompt_length[row])
        self.decided &= index < canvas.length[row]
        self.commit = np.zeros(len(positions), dtype=bool)
        self.remask, self.edit = self.commit.copy(), self.commit.copy()
        self.tokens = np.zeros(len(positions), dtype=np.int64)
        self.last = bool(canvas.step[row] + 1 >= rule.max_forwards)
        self.done = False

    def open(self, lengths: list[int]) -> None:
        """Lays out the blocks, their steps, and chooses the first one."""
        memory, row = self.memory, self.row
        borders = self.start + np.concatenate(([0], np.cumsum(lengths)))
        for number, (a, z) in enumerate(pairwise(borders)):
            memory.block[row, a:z] = number
        steps = self.rule.schedule.steps(lengths, [self._unrest(k) for k in range(len(lengths))])
        for number, count in enumerate(steps):
            memory.steps_left[row, memory.block[row] == number] = count
        memory.current[row] = self._next()

    def decide(self, candidates: np.ndarray, proposed: np.ndarray) -> None:
        self.tokens = proposed.copy()
        if self.memory.weld_left[self.row]:
            self._weld(candidates)
        else:
            self._denoise(candidates)

    def _denoise(self, candidates: np.ndarray) -> None:
        memory, row = self.memory, self.row
        inside = candidates & (memory.block[row, self.at] == memory.current[row]) & (self.at >= 0)
        chosen = candidates if self.last else self._chosen(inside)
        mine = memory.block[row] == memory.current[row]
        memory.steps_left[row, mine] -= 1
        self._record(chosen)
        if self.decided[mine].all():
            memory.current[row] = self._next()
        if memory.current[row] < 0 or self.last:
            self._finish()

    def _chosen(self, inside: np.ndarray) -> np.ndarray:
        count = int(inside.sum())
        if not count:
            return inside
        left = self.memory.steps_left[self.row, self.at[inside][0]]
        least = ceil(count / max(1, left)) if self.rule.quota else 1
        return self._best(inside, least) | (inside & (self.c >= self.rule.threshold))

    def _best(self, inside: np.ndarray, count: int) -> np.ndarray:
        order = np.argsort(-np.where(inside, self.c, -np.inf), kind="stable")
        chosen = np.zeros_like(inside)
        chosen[order[:count]] = True
        return chosen & inside

    def _record(self, chosen: np.ndarray) -> None:
        self.commit |= chosen
        self.decided[self.at[chosen]] = True
        self.memory.conf[self.row, self.at[chosen]] = self.c[chosen]
        self.memory.u[self.row, self.at[chosen]] = self.u[chosen]

    def _bounds(self, number: int) -> tuple[int, int]:
        own = (self.memory.block[self.row] == number).nonzero()[0]
        return int(own[0]), int(own[-1]) + 1

    def _unrest(self, number: int) -> float:
        """H: mean instability of a block in the latest predictions."""
        a, z = self._bounds(number)
        return float(self.u[(self.at >= a) & (self.at < z)].mean())

    def _next(self) -> int:
        """The block to decode next, -1 when none has masks."""
        schedule, open_ = self.rule.schedule, []
        for number in range(int(self.memory.block[self.row].max()) + 1):
            a, z = self._bounds(number)
            if not self.decided[a:z].all():
                anchoring = schedule.anchoring(self.decided, a, z)
                open_.append((number, schedule.energy(self._unrest(number), anchoring)))
        if not open_:
            return -1
        energies = [energy for _, energy in open_]
        return open_[schedule.choose(energies, self.canvas.generators[self.row])][0]

    def _finish(self) -> None:
        """Ends the window, or masks its unsure edges once more."""
        memory, row = self.memory, self.row
        edges = np.zeros(len(self.at), dtype=bool)
        if not self.last:
            edges = self._edges()
        if not edges.any():
            self.done = True
            return
        at = self.at[edges]
        fresh = self.commit & edges
        old = self.canvas.tokens[row, at]
        memory.old_token[row, at] = np.where(fresh[edges], self.tokens[edges], old)
        memory.old_conf[row, at], memory.old_u[row, at] = memory.conf[row, at], memory.u[row, at]
        self.remask = edges & ~fresh
        self.commit &= ~edges
        memory.weld_left[row] = self.rule.weld_steps

    def _edges(self) -> np.ndarray:
        """S: unsure generated positions around the borders; the prompt's end is none."""
        memory, row, prompt = self.memory, self.row, int(self.canvas.prompt_length[self.row])
        near = np.zeros(self.canvas.capacity, dtype=bool)
        for number in range(int(memory.block[row].max()) + 1):
            border = self._bounds(number)[0]
            if border > prompt:
                reach = self.rule.weld_radius
                near[max(prompt, border - reach) : min(border + reach, self.end)] = True
        near &= memory.conf[row] < self.rule.weld_threshold
        return near[self.at] & (self.at >= 0)

    def _weld(self, candidates: np.ndarray) -> None:
        memory, row = self.memory, self.row
        masked = candidates & (memory.old_token[row, self.at] >= 0)
        left = int(memory.weld_left[row])
        count = int(masked.sum()) if self.last else ceil(int(masked.sum()) / left)
        self._record(self._best(masked, count))
        # A vetoed position may need more forwards than planned.
        memory.weld_left[row] = max(1, left - 1)
        welded = (memory.old_token[row] >= 0).nonzero()[0]
        if self.last or self.decided[welded].all():
            self._accept(welded)

    def _accept(self, welded: np.ndarray) -> None:
        """Keeps the weld unless its likelihood fell and all that it replaced may come back."""
        memory, row = self.memory, self.row
        gain = np.log(memory.conf[row, welded]).sum() - np.log(memory.old_conf[row, welded]).sum()
        back = np.isin(self.at, welded)
        if gain < 0 and not (self.refused & back).any():
            memory.conf[row, welded] = memory.old_conf[row, welded]
            memory.u[row, welded] = memory.old_u[row, welded]
            old = memory.old_token[row, self.at]
            now = np.where(self.commit, self.tokens, self.canvas.tokens[row, self.at])
            self.edit = back & ~self.commit & (now != old)
            self.tokens = np.where(back, old, self.tokens)
        memory.weld_left[row] = 0
        self.done = True

    def close(self) -> tuple[int, bool]:
        """The sequence's length after this window, and whether the answer ends with it."""
        canvas, rule, row = self.canvas, self.rule, self.row
        start = int(canvas.prompt_length[row])
        tokens = canvas.tokens[row].copy()
        written = self.commit | self.edit
        tokens[self.at[written]] = self.tokens[written]
        self.memory.instability[row] = self.memory.u[row, self.start : self.end].mean()
        ends = np.isin(tokens[start : self.end], canvas.ends(row)).nonzero()[0]
        if rule.stop_at_end and ends.size:
            return start + int(ends[0]) + 1, True
        if self.last:
            return self.end, True
        most = start + canvas.prompts[row].gen_length
        following = min(self.end + rule.region.largest_window, most)
        if self.end < canvas.limit[row]:
            # A look-ahead that the model has no positions for is no truncation yet.
            following = min(following, int(canvas.limit[row]))
        return following, False

"""What the loop notes about one sequence in the batch: its cost, its record, how it ended."""

import time
from dataclasses import dataclass, field, replace
from typing import NewType

import numpy as np
from jaxtyping import Bool

from dllm.engine.settlement import Settlement
from dllm.step.canvas import Canvas, Prompt
from dllm.step.constraint import Reviewer
from dllm.step.decision import RowChanges
from dllm.step.outcome import Cost, Outcome
from dllm.step.plan import MODEL, Plan
from dllm.step.trace import Considered, Review, Step, Trace


Ticket = NewType("Ticket", int)
"""A submitted prompt; counted up from 0."""


@dataclass
class Row:
    """Notes about the sequence in row `b` of the canvas; `b` may change between steps."""

    ticket: Ticket
    """The session's name for it."""
    prompt: Prompt
    entered: float
    """When it joined the batch, by the clock."""
    trace: Trace | None
    earlier: Outcome | None
    """The generation that this one continues."""
    cost: Cost = field(default_factory=Cost)
    committed: int = 0
    given: set[int] = field(default_factory=set)
    """Positions that were filled, not committed."""
    failure: str | None = None
    truncated: bool = False
    finished: bool = False
    left_open: int | None = None
    """Position from which the end-of-answer policy leaves masks behind the answer, on purpose."""
    reviewer: Reviewer | None = None
    """Its constraint; None = it has none."""
    reopened: int = 0
    """Positions that the constraint's replacements have masked again: as many more decisions may be
    needed."""
    accepted: np.ndarray | None = None
    """The sequence as the constraint accepted it in this step, until it has been compared with what
    was written."""
    completion: str | None = None
    """The answer as the constraint would complete it."""
    asked: Review = field(default_factory=Review)
    """What the constraint was asked before this step's proposals."""

    def allowed(self, canvas: Canvas, position: int) -> Bool[np.ndarray, "vocab"] | None:
        """As `Reviewer.allowed`, counted."""
        assert self.reviewer is not None
        started = time.perf_counter()
        found = self.reviewer.allowed(canvas, position)
        self.asked.seconds += time.perf_counter() - started
        self.asked.checks += found.checks
        self.asked.lookaheads += found.lookaheads
        self.asked.timeouts += found.timeouts
        return found.tokens

    def fail(self, reason: str) -> None:
        """Gives the sequence up."""
        self.failure = f"sample {self.prompt.sample_id}: {reason}"
        self.finished = True

    def check_complete(self, canvas: Canvas, b: int) -> None:
        """Gives up a sequence that leaves with masks in its answer, whatever its rule says."""
        left = int(canvas.masked()[b, : self.left_open].sum())
        if left and self.failure is None:
            self.fail(f"{left} positions are still masked after {canvas.step[b]} steps")

    def decided(
        self,
        canvas: Canvas,
        b: int,
        plan: Plan,
        model: str,
        changes: RowChanges,
        block: int,
        probabilities: list[float | None],
    ) -> None:
        """One decision after a forward of `model`, made in `block` and already on the canvas."""
        self.cost.steps += 1
        self.committed += changes.net
        if self.trace is None:
            return
        start = int(canvas.prompt_length[b])
        opened = None
        if canvas.step_in_block[b] == 1:
            opened = int(canvas.block_start[b]) - start, int(canvas.block_end[b]) - start
        edited = [at - start for at in changes.edit_positions.tolist()]
        self.trace.steps.append(
            Step(
                kind=plan.kind_of(b),
                fed=int(plan.fed[b]),
                block=block,
                model=None if model == MODEL else model,
                opened=opened,
                spans=_spans(canvas, b, plan),
                positions=[at - start for at in changes.commit_positions.tolist()],
                tokens=changes.commit_tokens.tolist(),
                scores=changes.commit_scores.tolist(),
                probabilities=probabilities,
                forced=changes.forced,
                seconds=self._now(),
                remasked=[at - start for at in changes.remask_positions.tolist()],
                edits=list(zip(edited, changes.edit_tokens.tolist(), strict=True)),
                inserted=[(at - start, count) for at, count in changes.inserted],
                tried=list(changes.tried),
                marks={name: (at - start).tolist() for name, at in changes.marks.items()},
            )
        )

    def _now(self) -> float:
        """Seconds since the sequence entered, to a tenth of a millisecond."""
        return round(time.perf_counter() - self.entered, 4)

    def reviewed(self, settlement: Settlement) -> None:
        """What the constraint said to this step."""
        review = settlement.review
        self.accepted = settlement.after
        if settlement.failure is not None:
            self.fail(settlement.failure)
        if review is None:
            return
        asked, self.asked = self.asked, Review()
        review.checks += asked.checks
        review.lookaheads += asked.lookaheads
        review.timeouts += asked.timeouts
        review.seconds += asked.seconds
        cost = self.cost
        cost.checks += review.checks
        cost.lookaheads += review.lookaheads
        cost.timeouts += review.timeouts
        cost.constraint_seconds += review.seconds
        cost.rejections += len(review.refused) + len(review.left_out)
        cost.replacements += review.rewritten
        if self.trace is not None:
            self.trace.steps[-1].review = review
        if review.rewritten:
            self.reopened += settlement.changes.remask_positions.size
            positions = self.prompt.gen_length
            if cost.replacements > positions:
                self.fail(f"the constraint has rewritten the answer {cost.replacements} times")

    def check_written(self, canvas: Canvas, b: int) -> None:
        """What was reviewed is what was written."""
        if self.accepted is not None:
            written = canvas.tokens[b, : canvas.length[b]]
            assert np.array_equal(written, self.accepted), "a write has escaped the constraint"
            self.accepted = None

    def leave(self, canvas: Canvas, b: int) -> None:
        """The sequence ends as it stands."""
        if self.reviewer is not None:
            self.completion = self.reviewer.leave(canvas.tokens[b, : canvas.length[b]].copy())

    def idle(self, canvas: Canvas, b: int, plan: Plan, model: str) -> None:
        """A forward of `model` after which nothing is decided (prefill, commit, a draft)."""
        if self.trace is not None and plan.fed[b]:
            fed, block = int(plan.fed[b]), int(canvas.block_index[b])
            name = None if model == MODEL else model
            spans = _spans(canvas, b, plan)
            step = Step(plan.kind_of(b), fed, block, name, spans=spans, seconds=self._now())
            self.trace.steps.append(step)

    def considered(self, found: Considered) -> None:
        """What the last step had to decide on."""
        if self.trace is not None:
            self.trace.steps[-1].considered = found

    def resized(self, length: int) -> None:
        """The last step left a generation region of this length."""
        if self.trace is not None:
            self.trace.steps[-1].length = length

    def filled(self, start: int, token: int) -> None:
        """The last step set everything from `start` in the generation region to a token."""
        if self.trace is not None:
            self.trace.steps[-1].fill = (start, token)

    def outcome(self, canvas: Canvas, b: int, now: float) -> Outcome:
        """The finished sequence, together with the generation that it continues."""
        last = Outcome(
            sample_id=self.prompt.sample_id,
            prompt_length=int(canvas.prompt_length[b]),
            tokens=tuple(canvas.generated(b).tolist()),
            committed=self.committed,
            cost=self.cost,
            latency=now - self.entered,
            failure=self.failure,
            truncated=self.truncated,
            completion=self.completion,
            trace=self.trace,
        )
        if self.earlier is None:
            return last
        return replace(
            last,
            committed=self.earlier.committed + last.committed,
            cost=self.earlier.cost + last.cost,
            latency=self.earlier.latency + last.latency,
            truncated=self.earlier.truncated or last.truncated,
            earlier=self.earlier,
        )


def _spans(canvas: Canvas, b: int, plan: Plan) -> list[tuple[int, int]]:
    """What was fed, relative to the generation region; empty = the whole canvas."""
    start, length = int(canvas.prompt_length[b]), int(canvas.length[b])
    spans = [] if int(plan.fed[b]) >= length else plan.spans_of(b)
    return [] if spans == [(0, length)] else [(i - start, j - start) for i, j in spans]

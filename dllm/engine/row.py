"""What the loop notes about one sequence in the batch: its cost, its record, how it ended."""

from dataclasses import dataclass, field, replace

from dllm.step.canvas import Canvas, Prompt
from dllm.step.decision import RowChanges
from dllm.step.outcome import Cost, Outcome
from dllm.step.plan import Plan
from dllm.step.trace import Step, Trace


@dataclass
class Row:
    """Notes about the sequence in row `b` of the canvas; `b` may change between steps."""

    ticket: int
    """The session's name for it."""
    prompt: Prompt
    entered: float
    """When it joined the batch, by the clock."""
    trace: Trace | None
    earlier: Outcome | None
    """The generation that this one continues."""
    cost: Cost = field(default_factory=Cost)
    committed: int = 0
    failure: str | None = None
    truncated: bool = False
    finished: bool = False

    def fail(self, reason: str) -> None:
        """Gives the sequence up."""
        self.failure = f"sample {self.prompt.sample_id}: {reason}"
        self.finished = True

    def decided(self, canvas: Canvas, b: int, plan: Plan, changes: RowChanges, block: int) -> None:
        """One decision, made in `block` and already on the canvas."""
        self.cost.steps += 1
        self.committed += changes.net
        if self.trace is None:
            return
        start = int(canvas.prompt_length[b])
        opened = None
        if canvas.step_in_block[b] == 1:
            opened = int(canvas.block_start[b]) - start, int(canvas.block_end[b]) - start
        edited = (changes.edit_positions - start).tolist()
        self.trace.steps.append(
            Step(
                kind=plan.kind_of(b),
                fed=int(plan.fed[b]),
                block=block,
                opened=opened,
                spans=_spans(canvas, b, plan),
                positions=(changes.commit_positions - start).tolist(),
                tokens=changes.commit_tokens.tolist(),
                scores=changes.commit_scores.tolist(),
                remasked=(changes.remask_positions - start).tolist(),
                edits=list(zip(edited, changes.edit_tokens.tolist(), strict=True)),
                inserted=[(at - start, count) for at, count in changes.inserted],
                marks={name: (at - start).tolist() for name, at in changes.marks.items()},
            )
        )

    def idle(self, canvas: Canvas, b: int, plan: Plan) -> None:
        """A forward after which nothing is decided (prefill, commit)."""
        if self.trace is not None and plan.fed[b]:
            fed, block = int(plan.fed[b]), int(canvas.block_index[b])
            step = Step(plan.kind_of(b), fed, block, spans=_spans(canvas, b, plan))
            self.trace.steps.append(step)

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

"""The sequences that are decoded together, and the one denoising loop's step.

    plan -> predict -> observe -> select (constraints may veto and ask again) -> apply -> trace

It knows no sampler and no cache by name. It owns the forward count, the progress guard, the end-
of-answer policy, one random generator per sequence and the clock. Batches are ragged: a finished
sequence leaves and another one takes its row, so that a sequence's tokens do not depend on its
neighbours.
"""

import hashlib
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int

from dllm.cache.audit import Audit
from dllm.engine.forwards import Forwards
from dllm.engine.resizing import end_answer, resize, shorten
from dllm.engine.row import Row
from dllm.engine.selection import decide, seen, sound
from dllm.engine.setting import Setting
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.decision import Decision, HostDecision, RowChanges
from dllm.step.eos import end_of_answer
from dllm.step.outcome import Outcome
from dllm.step.plan import Request
from dllm.step.prediction import Prediction, View
from dllm.step.state import SamplerState
from dllm.step.trace import Trace


@dataclass(frozen=True)
class Written:
    """What one step did to one sequence; positions count from the start of the generation
    region."""

    positions: tuple[int, ...]
    """Where the decision wrote: commits, edits and remasks, in this order."""
    tokens: tuple[int, ...]
    """What it wrote, the mask token for remasks."""
    answer: Int[np.ndarray, "generation"]
    """The generation region after the step: also what was inserted, filled or cut off."""


class Batch:
    """Up to `batch_size` sequences of up to `capacity` positions each.

    Rows [0, len(rows)) are in use; between two steps those of finished sequences wait to be handed
    on.
    """

    def __init__(self, setting: Setting, capacity: int):
        self.setting, self.sampler, self.capacity = setting, setting.sampler, capacity
        self.spec = setting.predictor.spec
        self.device = setting.predictor.model.device
        self.canvas = Canvas.empty(capacity, self.spec.mask_id, self.spec.eos_ids)
        self.state = SamplerState(setting.sampler.fields(), capacity, self.device)
        self.forwards = Forwards(setting.predictor, setting.cache, capacity, setting.batch_size)
        self.audit = Audit(setting.predictor) if setting.cache.audit else None
        self.rows: list[Row] = []

    @property
    def live(self) -> int:
        """Sequences that are not finished."""
        return sum(not row.finished for row in self.rows)

    def enter(self, ticket: int, prompt: Prompt, layout: Layout) -> None:
        """A new sequence: in the row of a finished one, or in one more row."""
        gone = [b for b, row in enumerate(self.rows) if row.finished]
        self._place(gone[0] if gone else len(self.rows), ticket, prompt, layout)

    def cancel(self, ticket: int) -> None:
        """Ends a sequence without an outcome."""
        for row in self.rows:
            row.finished |= row.ticket == ticket

    def close_gaps(self) -> None:
        """Takes the rows of finished sequences out of use; the last sequences move there."""
        kept = [b for b, row in enumerate(self.rows) if not row.finished]
        if len(kept) == len(self.rows):
            return
        for gap in range(len(kept)):
            if kept[gap] != gap:
                kept.insert(gap, kept.pop())
        self.canvas.keep(kept)
        self.state.keep(kept)
        self.forwards.keep(kept)
        self.rows = [self.rows[b] for b in kept]

    def _place(
        self, b: int, ticket: int, prompt: Prompt, layout: Layout, earlier: Outcome | None = None
    ) -> None:
        name = f"{prompt.sample_id}/{prompt.phase}" if prompt.phase else prompt.sample_id
        digest = hashlib.sha256(f"{self.setting.seed}/{name}".encode()).digest()
        generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest[:7], "big"))
        trace = None
        if self.setting.record:
            trace = Trace(prompt.sample_id, layout.length - len(prompt.tokens), self.spec.mask_id)
        row = Row(ticket, prompt, time.perf_counter(), trace, earlier)
        if b == len(self.rows):
            self.canvas.append(prompt, layout, generator)
            self.state.append()
            self.forwards.append()
            self.rows.append(row)
        else:
            self.canvas.hand_on(b, prompt, layout, generator)
            self.state.hand_on(b)
            self.forwards.hand_on(b)
            self.rows[b] = row
        self._next_block(b)

    def _next_block(self, b: int) -> None:
        """Enters the next block that is not complete yet."""
        canvas, sampler = self.canvas, self.sampler
        while (bounds := sampler.region.next_block(canvas, b)) is not None:
            canvas.enter_block(b, *bounds)
            self.state.enter_block(b)
            if canvas.block_masks[b] or not sampler.block_done(canvas, b, self.state):
                return
            self.forwards.close_blocks(canvas, self.rows, [b])
        self.rows[b].finished = True

    def step(self) -> tuple[list[tuple[int, Written]], list[tuple[int, Outcome]]]:
        """One decision for every sequence: what it wrote, and the sequences that it finished, by
        ticket."""
        started = time.perf_counter()
        sampler, canvas, state = self.sampler, self.canvas, self.state
        eligible = sampler.region.eligible(canvas)
        request = sampler.plan(canvas, eligible, state)
        request, plan, prediction = self.forwards.step(canvas, self.rows, request)
        view, broken = sound(seen(canvas, request, eligible, prediction))
        for b in broken:
            self.rows[b].fail(f"logits are not finite at step {canvas.step[b]}")
        ends = sampler.refine(view, state)
        if ends is not None:
            canvas.end_blocks(ends)
            inside = view.positions < view.column(canvas.block_end)
            view = replace(view, candidates=view.candidates & inside)
        sampler.observe(view, state)
        if self.audit is not None:
            self._audit(self.audit, request, eligible, view)
        decision = decide(sampler, view, state, request.positions, self.setting.constraint)
        blocks = canvas.block_index.tolist()
        canvas.apply(decision)
        for name, value in decision.updates.items():
            state[name] = value
        sampler.committed(canvas, decision, state)
        for b, row in enumerate(self.rows):
            row.decided(canvas, b, plan, decision.rows[b], blocks[b])
            resize(canvas, b, row, decision.rows[b])
        self._advance(decision)
        share = (time.perf_counter() - started) / len(self.rows)
        for row in self.rows:
            row.cost.seconds += share
        written = [
            (row.ticket, _written(canvas, b, decision.rows[b])) for b, row in enumerate(self.rows)
        ]
        return written, self._finished()

    def _audit(self, audit: Audit, request: Request, eligible: np.ndarray, view: View) -> None:
        """Notes how far this step is from the one that a cache-free forward would lead to."""

        def without_mask(given: View) -> View:
            logits = given.logits.clone()
            logits[..., self.spec.mask_id] = -torch.inf
            return given.with_logits(logits)

        def fresh(prediction: Prediction) -> View:
            return without_mask(seen(self.canvas, request, eligible, prediction))

        def select(given: View) -> Decision:
            return self.sampler.select(given, self.state)

        findings = audit.findings(self.canvas, request, without_mask(view), fresh, select)
        for row, finding in zip(self.rows, findings, strict=True):
            if finding is not None:
                row.cost.audited += 1
                row.cost.audit_kl += finding.kl
                row.cost.audit_changed += finding.changed

    def _advance(self, decision: HostDecision) -> None:
        """Ends the blocks and the answers that are complete."""
        canvas, sampler = self.canvas, self.sampler
        done = [
            b
            for b, row in enumerate(self.rows)
            if not row.finished
            and (decision.rows[b].block_done or sampler.block_done(canvas, b, self.state))
        ]
        self.forwards.close_blocks(canvas, self.rows, done)
        for b, row in enumerate(self.rows):
            if row.finished:
                continue
            end = end_of_answer(canvas, b, self.setting.eos, b in done)
            if end is not None:
                end_answer(canvas, b, row, end, self.setting.eos)
            elif decision.rows[b].stop:
                row.finished = True
            elif b in done:
                self._next_block(b)
            limit = sampler.max_steps(row.prompt.gen_length)
            bound = int(canvas.limit[b]) if limit is None else limit
            if not row.finished and canvas.step[b] >= bound:
                row.finished = True
                if limit is None:  # only a constraint can bring the progress guard to a halt
                    row.fail(f"no token is allowed for {canvas.masked()[b].sum()} positions")

    def _finished(self) -> list[tuple[int, Outcome]]:
        """Reports finished sequences, or lets their next generation begin in their row."""
        now = time.perf_counter()
        reported = []
        for b, row in enumerate(self.rows):
            if not row.finished:
                continue
            shorten(self.canvas, b, row, int(self.canvas.kept[b]))
            outcome = row.outcome(self.canvas, b, now)
            following: Prompt | Outcome = outcome
            if row.failure is None:
                following = self.sampler.next_phase(row.prompt, outcome, self.spec)
            if isinstance(following, Prompt):
                layout = self.sampler.layout(following, self.spec)
                self._place(b, row.ticket, following, layout, outcome)
            else:
                reported.append((row.ticket, following))
        return reported


def _written(canvas: Canvas, b: int, changes: RowChanges) -> Written:
    at = (changes.commit_positions, changes.edit_positions, changes.remask_positions)
    masks = np.full_like(changes.remask_positions, canvas.mask_id)
    tokens = (changes.commit_tokens, changes.edit_tokens, masks)
    start = int(canvas.prompt_length[b])
    return Written(
        tuple((np.concatenate(at) - start).tolist()),
        tuple(np.concatenate(tokens).tolist()),
        canvas.generated(b).copy(),
    )

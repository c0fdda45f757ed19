"""The sequences that are decoded together, and the one denoising loop's step.

    plan -> predict -> observe -> select (constraints may veto and ask again) -> apply -> trace

It knows no sampler and no cache by name. It owns the forward count, the progress guard, the end-
of-answer policy, one random generator per sequence and the clock. Batches are ragged: a finished
sequence leaves and another one takes its row, so that a sequence's tokens do not depend on its
neighbours.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int

from dllm.cache.audit import Audit, Finding, findings
from dllm.engine.considered import considered
from dllm.engine.forwards import Forwards
from dllm.engine.probabilities import committed_probabilities
from dllm.engine.resizing import shorten
from dllm.engine.row import Row, Ticket
from dllm.engine.selection import decide, levelled, seen, sound
from dllm.engine.setting import Setting
from dllm.engine.settlement import Settlement
from dllm.engine.writing import go_on, next_block, reshape, write
from dllm.errors import ConfigError, RunError
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.constraint import Reviewer
from dllm.step.decision import HostDecision, RowChanges
from dllm.step.outcome import Outcome
from dllm.step.plan import MODEL, Plan, Request
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField
from dllm.step.trace import Considered, Trace


@dataclass(frozen=True)
class Written:
    """What one step did to one sequence; positions count from the start of the generation
    region."""

    changes: RowChanges
    start: int
    """Where the generation region begins on the canvas."""
    mask_id: int
    answer: Int[np.ndarray, "generation"]
    """The generation region after the step: also what was inserted, filled or cut off."""

    @property
    def positions(self) -> tuple[int, ...]:
        """Where the decision wrote: commits, edits and remasks, in this order."""
        its = self.changes
        at = (its.commit_positions, its.edit_positions, its.remask_positions)
        return tuple((np.concatenate(at) - self.start).tolist())

    @property
    def tokens(self) -> tuple[int, ...]:
        """What it wrote, the mask token for remasks."""
        its = self.changes
        masks = (self.mask_id,) * its.remask_positions.size
        return (*its.commit_tokens.tolist(), *its.edit_tokens.tolist(), *masks)


class Batch:
    """Up to `batch_size` sequences of up to `capacity` positions each.

    Rows [0, len(rows)) are in use; between two steps those of finished sequences wait to be handed
    on.
    """

    def __init__(self, setting: Setting, capacity: int):
        self.setting, self.sampler, self.capacity = setting, setting.sampler, capacity
        self.spec = setting.predictor.spec
        self.device = setting.predictor.model.device
        noise = self.spec.vocab_size if self.spec.noise == "uniform" else 0
        self.canvas = Canvas.empty(capacity, self.spec.mask_id, self.spec.eos_ids, noise)
        self.state = SamplerState(setting.sampler.fields(), capacity, self.device)
        self.forwards = Forwards(setting.models, capacity, setting.batch_size)
        self.audit = Audit(setting.predictor) if setting.cache.audit else None
        self.rows: list[Row] = []

    @property
    def live(self) -> int:
        """Sequences that are not finished."""
        return len([row for row in self.rows if not row.finished])

    def enter(self, ticket: Ticket, prompt: Prompt, layout: Layout) -> None:
        """A new sequence: in the row of a finished one, or in one more row."""
        gone = [b for b, row in enumerate(self.rows) if row.finished]
        self._place(gone[0] if gone else len(self.rows), ticket, prompt, layout)

    def cancel(self, ticket: Ticket) -> None:
        """Ends a sequence without an outcome."""
        for b, row in enumerate(self.rows):
            if row.ticket == ticket and not row.finished:
                row.finished = True
                row.leave(self.canvas, b)

    def trace(self, ticket: Ticket) -> Trace | None:
        """The record of a sequence that is not finished."""
        live = (row for row in self.rows if row.ticket == ticket and not row.finished)
        return next((row.trace for row in live), None)

    def change(self, setting: Setting) -> None:
        """Goes on with the sampler and the end-of-answer policy of another setting."""
        ours, theirs = self.sampler, setting.sampler
        kept, asked = _memory(ours), _memory(theirs)
        if asked[-1] and asked != kept:
            names = ", ".join(field.name for field in theirs.fields())
            if {f.name for f in theirs.fields()} <= {f.name for f in ours.fields()}:
                raise ConfigError(
                    f"{type(theirs).__name__} would remember {names} in another way than the "
                    "steps so far have"
                )
            raise ConfigError(
                f"{type(theirs).__name__} remembers {names}, which the steps of "
                f"{type(ours).__name__} have not told"
            )
        for row in self.rows:
            if theirs.layout(row.prompt, self.spec) != ours.layout(row.prompt, self.spec):
                raise ConfigError(
                    f"sample {row.prompt.sample_id}: another region lays out another canvas"
                )
        self.setting, self.sampler = setting, theirs

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
        self, b: int, ticket: Ticket, prompt: Prompt, layout: Layout, earlier: Outcome | None = None
    ) -> None:
        name = f"{prompt.sample_id}/{prompt.phase}" if prompt.phase else prompt.sample_id
        digest = hashlib.sha256(f"{self.setting.seed}/{name}".encode()).digest()
        generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest[:7], "big"))
        trace = None
        if self.setting.record:
            length, given = layout.length - len(prompt.tokens), list(prompt.region or ())
            trace = Trace(prompt.sample_id, length, self.spec.mask_id, given=given)
            trace.alternatives = self.setting.alternatives
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
        if self.setting.constraint is not None:
            row.reviewer = self.setting.constraint.enter(self.canvas, b)
            self.canvas.legality[b] = row
        close = partial(self._close, [b])
        row.finished = not next_block(self.sampler, self.canvas, self.state, b, close)

    def _close(self, done: list[int]) -> None:
        self.forwards.close_blocks(self.canvas, self.rows, done)

    def step(self) -> tuple[list[tuple[Ticket, Written]], list[tuple[Ticket, Outcome]]]:
        """One decision for every sequence: what it wrote, and the sequences that it finished, by
        ticket."""
        started = time.perf_counter()
        sampler, canvas, state = self.sampler, self.canvas, self.state
        eligible = sampler.region.eligible(canvas)
        request, plan, raw, view = self._predicted(eligible)
        forwards = 1
        while not request.decides:
            sampler.observe(view, state)
            for b, row in enumerate(self.rows):
                row.idle(canvas, b, plan, request.model)
            if forwards == self.capacity:
                raise RunError(f"sampler={type(sampler).__name__} plans on and never decides")
            request, plan, raw, view = self._predicted(eligible)
            forwards += 1
        ends = sampler.refine(view, state)
        if ends is not None:
            canvas.end_blocks(ends)
            view = view.before(canvas.block_end)
        sampler.observe(view, state)
        audited = None
        if self.audit is not None and request.model == MODEL:
            fresh, _ = sound(seen(canvas, request, eligible, self.audit.predict(canvas, request)))
            fresh = fresh if ends is None else fresh.before(canvas.block_end)
            audited = fresh, self._without_a_trace(fresh, request)
        decision, settlements = self._decided(view, [row.reviewer for row in self.rows], request)
        if audited is not None:
            self._audited(findings(view, *audited, decision))
        probabilities: list[list[float | None]] = [[]] * len(self.rows)
        if self.setting.record:
            probabilities = committed_probabilities(raw, request.positions, decision.rows)
        before: list[Considered] = []
        if self.setting.record and self.setting.alternatives:
            before = considered(raw, decision.rows, self.setting.alternatives)
        blocks = canvas.block_index.tolist()
        write(sampler, canvas, state, decision)
        for b, row in enumerate(self.rows):
            changes, model = decision.rows[b], request.model
            row.decided(canvas, b, plan, model, changes, blocks[b], probabilities[b])
            if before:
                row.considered(before[b])
            if b in settlements:
                row.reviewed(settlements[b])
            reshape(self.setting.eos, canvas, b, row, decision.rows[b])
        self.forwards.adopt(request.model, [changes.adopt for changes in decision.rows])
        self._advance(decision)
        share = (time.perf_counter() - started) / len(self.rows)
        for row in self.rows:
            row.cost.seconds += share
        written = [
            (row.ticket, Written(changes, start, canvas.mask_id, canvas.generated(b).copy()))
            for b, (row, changes, start) in enumerate(
                zip(self.rows, decision.rows, canvas.prompt_length.tolist(), strict=True)
            )
        ]
        return written, self._finished()

    def _predicted(
        self, eligible: Bool[np.ndarray, "batch canvas"]
    ) -> tuple[Request, Plan, View, View]:
        """What the sampler asks for, the forward that met it, and its prediction: raw, and as the
        sampler sees it."""
        request = self.sampler.plan(self.canvas, eligible, self.state)
        request, plan, prediction = self.forwards.step(self.canvas, self.rows, request)
        raw = seen(self.canvas, request, eligible, prediction)
        view, broken = sound(raw)
        if broken:
            for b in broken:
                self.rows[b].fail(f"logits are not finite at step {self.canvas.step[b]}")
            raw = levelled(raw, broken)
            view, _ = sound(raw)
        return request, plan, raw, view

    def _decided(
        self, view: View, reviewers: Sequence[Reviewer | None], request: Request
    ) -> tuple[HostDecision, dict[int, Settlement]]:
        """What is decided under review; sequences that were given up are not reviewed."""
        return decide(
            self.sampler,
            self.setting.eos,
            view,
            self.state,
            request.positions,
            [None if row.finished else by for row, by in zip(self.rows, reviewers, strict=True)],
            [row.reopened for row in self.rows],
        )

    def _without_a_trace(self, view: View, request: Request) -> HostDecision:
        """What would be decided on another view of this step; nothing remembers the question."""
        generators = self.canvas.generators
        drawn = [generator.get_state() for generator in generators]
        forks = [row.reviewer and row.reviewer.fork() for row in self.rows]
        decision, _ = self._decided(view, forks, request)
        for generator, state in zip(generators, drawn, strict=True):
            generator.set_state(state)
        return decision

    def _audited(self, found: list[Finding | None]) -> None:
        """Notes how far this step is from the one that a cache-free forward would lead to."""
        for row, finding in zip(self.rows, found, strict=True):
            if finding is not None:
                row.cost.audited += 1
                row.cost.audit_kl += finding.kl
                row.cost.audit_changed += finding.changed

    def _advance(self, decision: HostDecision) -> None:
        """Ends the blocks and the answers that are complete."""
        sampler, canvas, state = self.sampler, self.canvas, self.state
        done = [
            b
            for b, row in enumerate(self.rows)
            if not row.finished
            and (decision.rows[b].block_done or sampler.block_done(canvas, b, state))
        ]
        self._close(done)
        for b, row in enumerate(self.rows):
            if row.finished:
                continue
            changes, close = decision.rows[b], partial(self._close, [b])
            go_on(sampler, self.setting.eos, canvas, state, b, row, changes, b in done, close)
            if not row.finished:
                row.check_written(canvas, b)

    def _finished(self) -> list[tuple[Ticket, Outcome]]:
        """Reports finished sequences, or lets their next generation begin in their row."""
        now = time.perf_counter()
        reported = []
        for b, row in enumerate(self.rows):
            if not row.finished:
                continue
            shorten(self.canvas, b, row, int(self.canvas.kept[b]))
            row.check_complete(self.canvas, b)
            row.check_written(self.canvas, b)
            row.leave(self.canvas, b)
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


def _memory(sampler: Sampler) -> tuple[type, type, tuple[StateField, ...]]:
    """What tells whether a sampler's memory means to another what it means to itself."""
    return type(sampler), type(sampler.logits_transform), sampler.fields()

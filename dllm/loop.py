"""The one denoising loop.

    plan -> predict -> observe -> select (constraints may veto and ask again) -> apply -> trace

It knows no sampler and no cache by name. It owns the forward count, the progress guard, the end-
of-answer policy, one random generator per sequence and the clock. Batches are ragged: a finished
sequence leaves and the next one takes its place, so that a sequence's tokens do not depend on its
neighbours.
"""

import hashlib
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dllm.cache.audit import Audit, staleness
from dllm.cache.policy import CachePolicy
from dllm.cache.store import KVStore
from dllm.canvas import Canvas, Prompt
from dllm.decision import Decision, HostDecision, RowChanges, to_host
from dllm.eos import EosPolicy, end_of_answer
from dllm.errors import ConfigError, RunError
from dllm.legality import refusals
from dllm.models.predictor import Predictor
from dllm.outcome import Cost, Outcome
from dllm.plan import Plan, Request
from dllm.prediction import Prediction, View
from dllm.sampler import Sampler
from dllm.state import SamplerState
from dllm.trace import Step, Trace


class Constraint(Protocol):
    """Refuses tokens; asked after every selection, before anything is written."""

    def veto(self, canvas: Canvas, decision: HostDecision) -> list[tuple[int, int, int]]:
        """(row, position, token) of every refused commit; empty = accepted."""
        ...


@dataclass
class _Row:
    """The loop's own notes about one sequence in the batch."""

    prompt: Prompt
    entered: float
    cost: Cost
    committed: int = 0
    trace: Trace | None = None
    failure: str | None = None
    truncated: bool = False
    earlier: Outcome | None = None
    finished: bool = False


@dataclass(frozen=True)
class Decoder:
    """A model, a sampler and the circumstances under which they decode."""

    predictor: Predictor
    sampler: Sampler
    cache: CachePolicy
    eos: EosPolicy = EosPolicy.NONE
    constraint: Constraint | None = None
    batch_size: int = 1
    seed: int = 0
    record: bool = False
    """Keep a trace of every sequence."""

    def decode(self, prompts: Iterable[Prompt]) -> Iterator[Outcome]:
        """Outcomes in the order in which sequences finish.

        Raises `ConfigError` before any forward for a sequence that does not fit the model, the
        region or the schedule; a sequence whose logits are not finite is reported as failed and
        the others go on.
        """
        waiting = [self.sampler.prepare(prompt) for prompt in prompts]
        if not waiting:
            return
        self.check(waiting)
        spec = self.predictor.spec
        run = _Run(self, max(self.sampler.layout(p, spec).capacity for p in waiting))
        waiting.reverse()
        while waiting or run.rows:
            while waiting and len(run.rows) < self.batch_size:
                run.enter(waiting.pop())
            run.step()
            yield from run.leave()

    def check(self, prompts: list[Prompt]) -> None:
        """Raises `ConfigError` for what can't be decoded together or at all."""
        spec, sampler = self.predictor.spec, self.sampler
        reasons = refusals(sampler, self.cache, spec, self.batch_size)
        if reasons:
            raise ConfigError("; ".join(reasons))
        for prompt in prompts:
            if sampler.layout(prompt, spec).length > spec.max_positions:
                raise ConfigError(
                    f"sample {prompt.sample_id}: prompt of {len(prompt.tokens)} tokens + "
                    f"gen_length={prompt.gen_length} exceeds the model's {spec.max_positions} "
                    "positions"
                )
            answer = len(prompt.reference or ())
            if "reference" in sampler.needs and not 0 < answer <= prompt.gen_length:
                raise ConfigError(
                    f"sample {prompt.sample_id}: {type(sampler).__name__} needs a reference answer "
                    f"of 1 to gen_length={prompt.gen_length} tokens, got {answer or 'none'}"
                )
        for gen_length in {prompt.gen_length for prompt in prompts}:
            sampler.validate(gen_length)


class _Run:
    """The mutable side of one `Decoder.decode` call."""

    def __init__(self, decoder: Decoder, capacity: int):
        self.decoder = decoder
        self.spec = decoder.predictor.spec
        self.device = decoder.predictor.model.device
        self.canvas = Canvas.empty(capacity, self.spec.mask_id, self.spec.eos_ids)
        self.state = SamplerState(decoder.sampler.fields(), capacity, self.device)
        self.store: KVStore | None = None
        decoder.cache.begin(self.spec)
        self.audit = Audit(decoder.predictor) if decoder.cache.audit else None
        if decoder.cache.stores:
            self.store = KVStore(self.spec, 0, capacity, decoder.predictor.model.dtype, self.device)
        self.rows: list[_Row] = []
        self.most_drafts: int | None = None
        """Drafts per sequence that fit into memory; None = all so far."""

    def enter(self, prompt: Prompt, earlier: Outcome | None = None) -> None:
        name = f"{prompt.sample_id}/{prompt.phase}" if prompt.phase else prompt.sample_id
        digest = hashlib.sha256(f"{self.decoder.seed}/{name}".encode()).digest()
        generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest[:7], "big"))
        layout = self.decoder.sampler.layout(prompt, self.spec)
        self.canvas.append(prompt, layout, generator)
        self.state.append()
        if self.store is not None:
            self.store.append()
        trace = None
        if self.decoder.record:
            trace = Trace(prompt.sample_id, layout.length - len(prompt.tokens), self.spec.mask_id)
        self.rows.append(_Row(prompt, time.perf_counter(), Cost(), trace=trace, earlier=earlier))
        self._next_block(len(self.rows) - 1)

    def _next_block(self, row: int) -> None:
        """Enters the next block that is not complete yet."""
        sampler, canvas = self.decoder.sampler, self.canvas
        while (bounds := sampler.region.next_block(canvas, row)) is not None:
            canvas.enter_block(row, *bounds)
            self.state.enter_block(row)
            if canvas.block_masks[row] or not sampler.block_done(canvas, row, self.state):
                return
            self._close_blocks([row])
        self.rows[row].finished = True

    def _close_blocks(self, rows: list[int]) -> None:
        """Forwards that the cache owes to the completed blocks of `rows`."""
        if rows:
            for plan in self.decoder.cache.block_end(self.canvas, rows, self.store):
                self._forward(plan)
                self._record_idle(plan)

    def step(self) -> None:
        """One decision for every sequence in the batch."""
        started = time.perf_counter()
        sampler, canvas = self.decoder.sampler, self.canvas
        eligible = sampler.region.eligible(canvas)
        request = sampler.plan(canvas, eligible, self.state)
        request, plans, prediction = self._predict(request)
        assert prediction is not None, "a step's last plan predicts"
        view = self._view(request, eligible, prediction)
        view = self._refine(self._sound(view))
        sampler.observe(view, self.state)
        if self.audit is not None:
            self._audit(self.audit, request, eligible, view)
        decision = self._select(view, request.positions)
        blocks = canvas.block_index.copy()
        canvas.apply(decision)
        for name, value in decision.updates.items():
            self.state[name] = value
        sampler.committed(canvas, decision, self.state)
        for b, changes in enumerate(decision.rows):
            self._record(b, plans[-1], changes, int(blocks[b]))
            for position, count in changes.inserted:
                self._insert(b, position + 1, count)
            if decision.length is not None:
                tail = -1 if decision.tail is None else int(decision.tail[b])
                self._cut(b, int(decision.length[b]))
                self._grow(b, int(decision.length[b]), tail)
        self._advance(decision)
        share = (time.perf_counter() - started) / len(self.rows)
        for row in self.rows:
            row.cost.seconds += share

    def _audit(self, audit: Audit, request: Request, eligible: np.ndarray, view: View) -> None:
        """Notes how far this step is from the one that a cache-free forward would lead to."""

        def without_mask(given: View) -> View:
            logits = given.logits.clone()
            logits[..., self.spec.mask_id] = -torch.inf
            return given.with_logits(logits)

        def seen(prediction: Prediction) -> View:
            return without_mask(self._view(request, eligible, prediction))

        def select(given: View) -> Decision:
            return self.decoder.sampler.select(given, self.state)

        findings = audit.findings(self.canvas, request, without_mask(view), seen, select)
        for row, finding in zip(self.rows, findings, strict=True):
            if finding is not None:
                row.cost.audited += 1
                row.cost.audit_kl += finding.kl
                row.cost.audit_changed += finding.changed

    def _predict(self, request: Request) -> tuple[Request, list[Plan], Prediction | None]:
        """The forwards of a step; where memory is short, with half of the drafts, from then on.

        Raises `RunError` if there is nothing to leave out.
        """
        while True:
            if request.droppable and request.hypotheses is not None:
                kept = request.hypotheses[:, : self.most_drafts]
                request = replace(request, hypotheses=kept if kept.shape[1] else None)
            plans = self.decoder.cache.plan(self.canvas, request, self.store)
            try:
                for plan in plans[:-1]:
                    self._forward(plan)
                    self._record_idle(plan)
                return request, plans, self._forward(plans[-1])
            except torch.OutOfMemoryError:
                drafts = 0 if request.hypotheses is None else request.hypotheses.shape[1]
                if not (request.droppable and drafts):
                    raise RunError(
                        f"batch_size={self.decoder.batch_size}: out of memory in a forward of "
                        f"{plans[-1].slots.shape[0]} x {plans[-1].slots.shape[1]} rows"
                    ) from None
                self.most_drafts = drafts // 2
                warnings.warn(
                    f"memory is short: {self.most_drafts} drafts per sequence instead of {drafts}",
                    stacklevel=2,
                )

    def _forward(self, plan: Plan) -> Prediction | None:
        if self.store is not None:
            found = staleness(plan, self.canvas, self.store)
            for b, row in enumerate(self.rows):
                row.cost.attended += int(found.attended[b])
                row.cost.stale += int(found.stale[b])
        before = time.perf_counter()
        prediction = self.decoder.predictor.predict(plan, self.store)
        self._count(plan, time.perf_counter() - before)
        return prediction

    def _count(self, plan: Plan, seconds: float) -> None:
        extra = [0] * len(self.rows)
        if len(plan.slots) > len(self.rows):
            present = (plan.slots >= 0).any(dim=1).view(-1, len(self.rows))
            extra = (present.sum(dim=0) - 1).tolist()
        share = seconds / len(self.rows)
        for b, (row, fed) in enumerate(zip(self.rows, plan.fed.tolist(), strict=True)):
            if fed:
                row.cost.forwards[plan.kind_of(b)] += 1
                row.cost.aux_forwards += extra[b]
                row.cost.rows += fed
            row.cost.model_seconds += share

    def _view(self, request: Request, eligible: np.ndarray, prediction: Prediction) -> View:
        positions, batch = request.positions, len(request.positions)
        candidates = np.take_along_axis(eligible, positions, axis=1) & (positions >= 0)
        open_rows = torch.from_numpy(candidates).to(self.device)
        logits, hypotheses, drafts, stale = prediction.logits, None, None, None
        if prediction.valid is not None:
            open_rows = open_rows & prediction.valid[:batch]
            stale = ~prediction.valid[:batch]
        if len(logits) > batch:
            shape = (len(logits) // batch - 1, batch, *logits.shape[1:])
            hypotheses = logits[batch:].view(shape).transpose(0, 1)
            logits = logits[:batch]
            drafts = torch.from_numpy(request.hypotheses).to(self.device)
        rows = torch.from_numpy(positions).to(self.device)
        return View(self.canvas, rows, logits, open_rows, hypotheses, drafts, stale)

    def _sound(self, view: View) -> View:
        """The view without what no rule can decide on: sequences whose logits hold NaN or +inf
        are given up, and a mask token that would be the proposal is taken out of the running
        (committing it would change nothing, for ever)."""
        if view.positions.shape[1] == 0:
            return view
        value, token = view.top
        mask = view.candidates & (token == self.spec.mask_id)
        broken = view.candidates & ~value.isfinite()
        if not (mask | broken).any():
            return view
        for b in broken.any(dim=1).nonzero().flatten().tolist():
            row = self.rows[b]
            step = int(self.canvas.step[b])
            row.failure = f"sample {row.prompt.sample_id}: logits are not finite at step {step}"
            row.finished = True
        if not mask.any():
            return view
        logits = view.logits.clone()
        logits[..., self.spec.mask_id].masked_fill_(mask, -torch.inf)
        return view.with_logits(logits)

    def _refine(self, view: View) -> View:
        ends = self.decoder.sampler.refine(view, self.state)
        if ends is None:
            return view
        canvas = self.canvas
        for b in range(canvas.batch):
            if ends[b] != canvas.block_end[b]:
                canvas.block_end[b] = ends[b]
                canvas.block_masks[b] = canvas.masked_in_block(b)
        inside = view.positions < view.column(canvas.block_end)
        return replace(view, candidates=view.candidates & inside)

    def _select(self, view: View, positions: np.ndarray) -> HostDecision:
        """The sampler's decision once nobody objects; every veto removes a token, so that this
        ends.

        The mask token is always refused (a proposer that samples may draw it). Each selection of
        a step draws the same random numbers, so that a veto leaves the other sequences as they
        were.
        """
        decoder = self.decoder
        guard = not decoder.sampler.may_commit_nothing
        generators = self.canvas.generators
        drawn = [generator.get_state() for generator in generators]
        while True:
            decision = decoder.sampler.select(view, self.state)
            candidates = view.candidates.cpu().numpy()
            host = to_host(decision, positions, candidates, guard)
            vetoed = [
                (b, int(position), self.spec.mask_id)
                for b, row in enumerate(host.rows)
                for position in row.commit_positions[row.commit_tokens == self.spec.mask_id]
            ]
            if decoder.constraint is not None:
                vetoed += decoder.constraint.veto(self.canvas, host)
            if not vetoed:
                return host
            view = view.veto(self._veto_mask(view, positions, vetoed))
            for generator, state in zip(generators, drawn, strict=True):
                generator.set_state(state)

    def _veto_mask(
        self, view: View, positions: np.ndarray, vetoed: list[tuple[int, int, int]]
    ) -> Tensor:
        mask = torch.zeros_like(view.logits, dtype=torch.bool)
        for row, position, token in vetoed:
            mask[row, int((positions[row] == position).argmax()), token] = True
        return mask

    def _record(self, b: int, plan: Plan, changes: RowChanges, block: int) -> None:
        row = self.rows[b]
        row.cost.steps += 1
        row.committed += changes.net
        if row.trace is None:
            return
        start = int(self.canvas.prompt_length[b])
        row.trace.steps.append(
            Step(
                kind=plan.kind_of(b),
                fed=int(plan.fed[b]),
                block=block,
                opened=self._bounds(b) if self.canvas.step_in_block[b] == 1 else None,
                spans=self._spans(b, plan),
                positions=(changes.commit_positions - start).tolist(),
                tokens=changes.commit_tokens.tolist(),
                scores=changes.commit_scores.tolist(),
                remasked=(changes.remask_positions - start).tolist(),
                edits=list(
                    zip(
                        (changes.edit_positions - start).tolist(),
                        changes.edit_tokens.tolist(),
                        strict=True,
                    )
                ),
                inserted=[(at - start, count) for at, count in changes.inserted],
                marks={name: (at - start).tolist() for name, at in changes.marks.items()},
            )
        )

    def _bounds(self, b: int) -> tuple[int, int]:
        canvas = self.canvas
        start = int(canvas.prompt_length[b])
        return int(canvas.block_start[b]) - start, int(canvas.block_end[b]) - start

    def _record_idle(self, plan: Plan) -> None:
        """A forward after which nothing is decided (prefill, commit)."""
        for b, row in enumerate(self.rows):
            if row.trace is not None and plan.fed[b]:
                block = int(self.canvas.block_index[b])
                spans = self._spans(b, plan)
                fed = int(plan.fed[b])
                row.trace.steps.append(Step(plan.kind_of(b), fed, block, spans=spans))

    def _spans(self, b: int, plan: Plan) -> list[tuple[int, int]]:
        """What was fed, relative to the generation region; empty = the whole canvas."""
        start, length = int(self.canvas.prompt_length[b]), int(self.canvas.length[b])
        spans = [] if int(plan.fed[b]) >= length else plan.spans_of(b)
        return [] if spans == [(0, length)] else [(i - start, j - start) for i, j in spans]

    def _cut(self, b: int, length: int) -> None:
        """Shortens a sequence; what this step committed beyond never happened."""
        trace = self.rows[b].trace
        if length < self.canvas.length[b] and trace is not None:
            trace.steps[-1].cut(length - int(self.canvas.prompt_length[b]))
        self._shorten(b, length)

    def _insert(self, b: int, position: int, count: int) -> None:
        room = int(self.canvas.limit[b] - self.canvas.length[b])
        self.canvas.insert(b, position, min(count, room))
        self.rows[b].truncated |= count > room

    def _grow(self, b: int, length: int, tail: int) -> None:
        """Lengthens a sequence as far as there is room, with masks or with the token `tail`."""
        canvas, row = self.canvas, self.rows[b]
        if length <= canvas.length[b]:
            return
        row.truncated |= length > canvas.limit[b]
        before, after = int(canvas.length[b]), min(length, int(canvas.limit[b]))
        start = int(canvas.prompt_length[b])
        canvas.grow(b, after - before)
        if row.trace is not None:
            row.trace.steps[-1].length = after - start
        if tail >= 0:
            canvas.fill(b, before, tail)
            if row.trace is not None:
                row.trace.steps[-1].fill = (before - start, tail)

    def _shorten(self, b: int, length: int) -> None:
        """Ends a sequence at `length`; what was committed beyond no longer counts."""
        canvas, row = self.canvas, self.rows[b]
        if length >= canvas.length[b]:
            return
        beyond = canvas.tokens[b, length : canvas.length[b]]
        row.committed -= int((beyond != canvas.mask_id).sum())
        canvas.truncate(b, length)
        if row.trace is not None:
            row.trace.steps[-1].length = length - int(canvas.prompt_length[b])

    def _advance(self, decision: HostDecision) -> None:
        """Ends the blocks and the answers that are complete."""
        canvas, sampler = self.canvas, self.decoder.sampler
        done = [
            b
            for b, row in enumerate(self.rows)
            if not row.finished
            and (decision.block_done[b] or sampler.block_done(canvas, b, self.state))
        ]
        self._close_blocks(done)
        for b, row in enumerate(self.rows):
            if not row.finished:
                self._proceed(b, b in done, decision)

    def _proceed(self, b: int, done: bool, decision: HostDecision) -> None:
        canvas, row, sampler = self.canvas, self.rows[b], self.decoder.sampler
        end = end_of_answer(canvas, b, self.decoder.eos, done)
        if end is not None:
            self._end_answer(b, end)
        elif decision.stop[b]:
            row.finished = True
        elif done:
            self._next_block(b)
        limit = sampler.max_steps(row.prompt.gen_length)
        if not row.finished and canvas.step[b] >= (canvas.capacity if limit is None else limit):
            row.finished = True
            if limit is None:  # only a constraint can bring the progress guard to a halt
                row.failure = (
                    f"sample {row.prompt.sample_id}: no token is allowed for "
                    f"{canvas.masked()[b].sum()} positions"
                )

    def _end_answer(self, b: int, end: int) -> None:
        canvas, row = self.canvas, self.rows[b]
        start = int(canvas.prompt_length[b])
        row.finished = True
        if self.decoder.eos.shortens:
            self._shorten(b, end)
        elif self.decoder.eos is not EosPolicy.STOP_AFTER_BLOCK and end < canvas.length[b]:
            canvas.fill(b, end, canvas.eos_ids[0])
            if row.trace is not None:
                row.trace.steps[-1].fill = (end - start, canvas.eos_ids[0])

    def leave(self) -> Iterator[Outcome]:
        """Removes finished sequences and reports them."""
        finished = [b for b, row in enumerate(self.rows) if row.finished]
        if not finished:
            return
        now = time.perf_counter()
        going_on = []
        for b in finished:
            row = self.rows[b]
            self._shorten(b, int(self.canvas.kept[b]))
            outcome = Outcome(
                sample_id=row.prompt.sample_id,
                prompt_length=int(self.canvas.prompt_length[b]),
                tokens=tuple(self.canvas.generated(b).tolist()),
                committed=row.committed,
                cost=row.cost,
                latency=now - row.entered,
                failure=row.failure,
                truncated=row.truncated,
                trace=row.trace,
            )
            if row.earlier is not None:
                outcome = _joined(row.earlier, outcome)
            following: Prompt | Outcome = outcome
            if row.failure is None:
                sampler = self.decoder.sampler
                following = sampler.next_phase(row.prompt, outcome, self.spec)
            if isinstance(following, Prompt):
                going_on.append((following, outcome))
            else:
                yield following
        kept = [b for b in range(len(self.rows)) if b not in finished]
        self.canvas.keep(kept)
        self.state.keep(kept)
        if self.store is not None:
            self.store.keep(kept)
        self.rows = [self.rows[b] for b in kept]
        for prompt, outcome in going_on:
            self.enter(prompt, outcome)


def _joined(earlier: Outcome, last: Outcome) -> Outcome:
    return replace(
        last,
        committed=earlier.committed + last.committed,
        cost=earlier.cost + last.cost,
        latency=earlier.latency + last.latency,
        truncated=earlier.truncated or last.truncated,
        earlier=earlier,
    )

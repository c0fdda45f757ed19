"""The one denoising loop.

    plan -> predict -> observe -> select (constraints may veto and ask again) -> apply -> trace

It knows no sampler and no cache by name. It owns the forward count, the progress guard, the end-
of-answer policy, one random generator per sequence and the clock. Batches are ragged: a finished
sequence leaves and the next one takes its place, so that a sequence's tokens do not depend on its
neighbours.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from dllm.cache.audit import Audit
from dllm.cache.policy import CachePolicy
from dllm.engine.forwards import Forwards
from dllm.engine.legality import refusals
from dllm.engine.resizing import end_answer, resize, shorten
from dllm.engine.row import Row
from dllm.engine.selection import Constraint, decide, seen, sound
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Canvas, Prompt
from dllm.step.decision import Decision, HostDecision
from dllm.step.eos import EosPolicy, end_of_answer
from dllm.step.outcome import Outcome
from dllm.step.plan import Request
from dllm.step.prediction import Prediction, View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from dllm.step.trace import Trace


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
        self.decoder, self.sampler = decoder, decoder.sampler
        self.spec = decoder.predictor.spec
        self.device = decoder.predictor.model.device
        self.canvas = Canvas.empty(capacity, self.spec.mask_id, self.spec.eos_ids)
        self.state = SamplerState(decoder.sampler.fields(), capacity, self.device)
        self.forwards = Forwards(decoder.predictor, decoder.cache, capacity, decoder.batch_size)
        self.audit = Audit(decoder.predictor) if decoder.cache.audit else None
        self.rows: list[Row] = []

    def enter(self, prompt: Prompt, earlier: Outcome | None = None) -> None:
        name = f"{prompt.sample_id}/{prompt.phase}" if prompt.phase else prompt.sample_id
        digest = hashlib.sha256(f"{self.decoder.seed}/{name}".encode()).digest()
        generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest[:7], "big"))
        layout = self.sampler.layout(prompt, self.spec)
        self.canvas.append(prompt, layout, generator)
        self.state.append()
        self.forwards.append()
        trace = None
        if self.decoder.record:
            trace = Trace(prompt.sample_id, layout.length - len(prompt.tokens), self.spec.mask_id)
        self.rows.append(Row(prompt, time.perf_counter(), trace, earlier))
        self._next_block(len(self.rows) - 1)

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

    def step(self) -> None:
        """One decision for every sequence in the batch."""
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
        decision = decide(sampler, view, state, request.positions, self.decoder.constraint)
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
            end = end_of_answer(canvas, b, self.decoder.eos, b in done)
            if end is not None:
                end_answer(canvas, b, row, end, self.decoder.eos)
            elif decision.rows[b].stop:
                row.finished = True
            elif b in done:
                self._next_block(b)
            limit = sampler.max_steps(row.prompt.gen_length)
            if not row.finished and canvas.step[b] >= (canvas.capacity if limit is None else limit):
                row.finished = True
                if limit is None:  # only a constraint can bring the progress guard to a halt
                    row.fail(f"no token is allowed for {canvas.masked()[b].sum()} positions")

    def leave(self) -> Iterator[Outcome]:
        """Removes finished sequences and reports them."""
        finished = [b for b, row in enumerate(self.rows) if row.finished]
        if not finished:
            return
        now = time.perf_counter()
        going_on = []
        for b in finished:
            row = self.rows[b]
            shorten(self.canvas, b, row, int(self.canvas.kept[b]))
            outcome = row.outcome(self.canvas, b, now)
            following: Prompt | Outcome = outcome
            if row.failure is None:
                following = self.sampler.next_phase(row.prompt, outcome, self.spec)
            if isinstance(following, Prompt):
                going_on.append((following, outcome))
            else:
                yield following
        kept = [b for b, row in enumerate(self.rows) if not row.finished]
        self.canvas.keep(kept)
        self.state.keep(kept)
        self.forwards.keep(kept)
        self.rows = [self.rows[b] for b in kept]
        for prompt, outcome in going_on:
            self.enter(prompt, outcome)

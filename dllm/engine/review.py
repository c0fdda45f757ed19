"""One sequence's decision under review: shown to its constraint, taken back, decided anew.

Everything happens on copies and on this sequence's logits and generator: the others in the batch
are not touched, whatever the constraint says.
"""

import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dllm.engine.resizing import shorten
from dllm.engine.row import Row, Ticket
from dllm.engine.settlement import Settlement
from dllm.engine.writing import go_on, reshape, write
from dllm.step.canvas import Canvas
from dllm.step.constraint import (
    Accepted,
    Commit,
    Kind,
    Proposal,
    Replacement,
    Reviewer,
    Unsatisfiable,
    Vetoes,
)
from dllm.step.decision import NO_CHANGES, HostDecision, RowChanges, to_host
from dllm.step.eos import EosPolicy
from dllm.step.plan import ForwardKind
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from dllm.step.trace import Review, Step, Trace


_LEFT_OUT: dict[Kind, dict[str, object]] = {
    "edit": {"edit_positions": NO_CHANGES.edit_positions, "edit_tokens": NO_CHANGES.edit_tokens},
    "remask": {"remask_positions": NO_CHANGES.remask_positions},
    "insert": {"inserted": ()},
    "length": {"length": None},
    "stop": {"stop": False},
    "end": {"open_end": True},
}


@dataclass
class Hearing:
    """Asks the reviewer and the sampler in turn until nobody objects.

    Every veto removes a token or a kind of change for this step, a second rewriting in a row is a
    failure: this ends.
    """

    sampler: Sampler
    eos: EosPolicy
    view: View
    """This sequence alone; loses tokens with every veto."""
    state: SamplerState
    drawn: Tensor
    """The generator's state before the step's first selection."""
    reviewer: Reviewer | None
    reopened: int
    """Positions that earlier replacements have masked again."""
    settlement: Settlement
    accepted: list[tuple[int, int]] = field(default_factory=list)
    """(position, token) of commits that the reviewer has accepted in this step."""
    left_out: set[Kind] = field(default_factory=set)

    def run(self) -> None:
        """Completes the settlement."""
        now = self.settlement
        if self.reviewer is not None:
            now.review = Review()
        while now.failure is None:
            drawn_masks = self._masks()
            if drawn_masks:
                self._ask_again(Vetoes(drawn_masks))
            elif self.reviewer is None or now.review is None or self._heard(now.review):
                break
        if now.failure is not None:
            now.changes, now.updates, now.after = NO_CHANGES, {}, None

    def _masks(self) -> tuple[tuple[int, int], ...]:
        """Commits of the mask token, which would change nothing, for ever, and edits to it, which
        would be remasks that nobody counts."""
        changes, mask = self.settlement.changes, self.view.canvas.mask_id
        if changes.rewritten:
            return ()
        edits = _pairs(changes.edit_positions, changes.edit_tokens)
        return (*self._commits_of(mask), *((at, token) for at, token in edits if token == mask))

    def _commits_of(self, token: int) -> tuple[tuple[int, int], ...]:
        changes = self.settlement.changes
        found = changes.commit_positions[changes.commit_tokens == token]
        return tuple((int(position), token) for position in found)

    def _heard(self, review: Review) -> bool:
        """Asks the reviewer once; whether it has accepted."""
        assert self.reviewer is not None
        proposal = self._proposal()
        started = time.perf_counter()
        verdict = self.reviewer.review(self.view, proposal)
        review.seconds += time.perf_counter() - started
        review.checks += verdict.checks
        review.lookaheads += verdict.lookaheads
        review.timeouts += verdict.timeouts
        match verdict:
            case Accepted():
                self.accepted = _commits(proposal)
                if self._goes_on(proposal):
                    return False
                self.settlement.changes = proposal.changes
                self.settlement.after = proposal.after
                return True
            case Unsatisfiable():
                self.settlement.failure = verdict.reason
            case _ if proposal.rewritten:
                self.settlement.failure = "the constraint refuses its own replacement"
            case Replacement():
                review.rewritten = True
                self._rewrite(verdict)
            case Vetoes():
                written = proposal.changes
                proposed = {(commit.position, commit.token) for commit in proposal.commits}
                proposed.update(_pairs(written.edit_positions, written.edit_tokens))
                if self.sampler.one_by_one:
                    asked = tuple(pair for pair in verdict.tokens if pair in proposed)
                    verdict = replace(verdict, tokens=asked)
                review.refused += [pair for pair in verdict.tokens if pair in proposed]
                review.left_out += sorted(verdict.kinds - self.left_out)
                if not self.sampler.one_by_one:
                    self.accepted = _commits(proposal)[: verdict.accepted]
                self._ask_again(verdict)
        return False

    def _goes_on(self, proposal: Proposal) -> bool:
        """Whether commits are left that the reviewer has to be asked about one by one."""
        changes = self.settlement.changes
        if proposal.ends or len(proposal.commits) == changes.commit_positions.size:
            return False
        if proposal.filled is not None:
            # What the end token has filled is no mask any more: others take those places.
            end = np.full(1, proposal.filled[0])
            self.view = self.view.before(end)
            if (changes.commit_positions >= end).any():
                self._decide_anew()
                self._leave_out()
        return True

    def _ask_again(self, vetoes: Vetoes) -> None:
        """The sampler's decision without what was refused."""
        view, sampler = self.view, self.sampler
        positions = view.positions.cpu().numpy()
        refused = torch.zeros_like(view.logits, dtype=torch.bool)
        for position, token in vetoes.tokens:
            refused[0, positions[0] == position, token] = True
        new = vetoes.kinds - self.left_out
        if not new and not bool((refused & ~view.logits.isneginf()).any()):
            again = [f"token {token} at {position}" for position, token in vetoes.tokens[:1]]
            self.settlement.failure = (
                f"the constraint refuses what can't be taken back: {', '.join(again) or 'nothing'}"
            )
            return
        self.left_out |= new
        if vetoes.tokens:
            open_before = bool(view.candidates.any())
            self.view = view = view.veto(refused, vetoes.renormalise and sampler.renormalises)
            self._decide_anew()
            changes = self.settlement.changes
            if open_before and not view.candidates.any() and _writes_nothing(changes):
                masks = int(view.canvas.masked()[0].sum())
                self.settlement.failure = f"no token is allowed for {masks} positions"
        self._leave_out()

    def _leave_out(self) -> None:
        for kind in self.left_out:
            self.settlement.changes = replace(self.settlement.changes, **_LEFT_OUT[kind])

    def _decide_anew(self) -> None:
        view, sampler = self.view, self.sampler
        if not sampler.fresh_draws:
            view.canvas.generators[0].set_state(self.drawn)
        decision = sampler.select(view, self.state)
        positions, guard = view.positions.cpu().numpy(), not sampler.may_commit_nothing
        host = to_host(decision, positions, view.candidates, guard, view.given)
        changes = host.rows[0]
        if sampler.fresh_draws or sampler.one_by_one:
            changes = self._with_accepted(changes)
        self.settlement.changes, self.settlement.updates = changes, dict(host.updates)

    def _with_accepted(self, changes: RowChanges) -> RowChanges:
        """A decision drawn anew, as many commits as it has: those accepted, then its best."""
        before = self.settlement.changes
        kept = {position for position, _ in self.accepted}
        old = np.isin(before.commit_positions, list(kept))
        other = ~np.isin(changes.commit_positions, list(kept))
        room = max(changes.commit_positions.size - int(old.sum()), 0)
        scores = np.where(other, changes.commit_scores, -np.inf)
        best = np.argsort(-scores, kind="stable")[: min(room, int(other.sum()))]
        positions = np.concatenate((before.commit_positions[old], changes.commit_positions[best]))
        order = np.argsort(positions)
        return replace(
            changes,
            commit_positions=positions[order],
            commit_tokens=np.concatenate((before.commit_tokens[old], changes.commit_tokens[best]))[
                order
            ],
            commit_scores=np.concatenate((before.commit_scores[old], changes.commit_scores[best]))[
                order
            ],
        )

    def _rewrite(self, replacement: Replacement) -> None:
        """The replacement as a decision; the sampler's memory stays as it is."""
        canvas, view = self.view.canvas, self.view
        start, end = int(canvas.prompt_length[0]), int(canvas.length[0])
        given = canvas.given()
        commits, edits, remasks = [], [], []
        for position, token in sorted(replacement.tokens.items()):
            if not start <= position < end:
                self.settlement.failure = (
                    f"the constraint writes at {position}, outside the answer [{start}, {end})"
                )
                return
            now = int(canvas.tokens[0, position])
            if token == now:
                continue
            if given is not None and given[0, position]:
                self.settlement.failure = f"the constraint writes at {position}, which was given"
                return
            if token == canvas.mask_id:
                remasks.append(position)
            elif now == canvas.mask_id:
                commits.append((position, token, _probability(view, position, token)))
            else:
                edits.append((position, token))
        at, tokens, scores = zip(*commits, strict=True) if commits else ((), (), ())
        edited, edit_tokens = zip(*edits, strict=True) if edits else ((), ())
        self.settlement.updates = {}
        self.settlement.changes = RowChanges(
            commit_positions=np.array(at, dtype=np.int64),
            commit_tokens=np.array(tokens, dtype=np.int64),
            commit_scores=np.array(scores, dtype=np.float64),
            remask_positions=np.array(remasks, dtype=np.int64),
            edit_positions=np.array(edited, dtype=np.int64),
            edit_tokens=np.array(edit_tokens, dtype=np.int64),
            forced=False,
            rewritten=True,
        )

    def _proposal(self) -> Proposal:
        changes = self.settlement.changes
        known = {pair: rank for rank, pair in enumerate(self.accepted)}
        commits = [
            Commit(int(position), int(token), float(score))
            for position, token, score in zip(
                changes.commit_positions,
                changes.commit_tokens,
                changes.commit_scores,
                strict=True,
            )
        ]
        last = len(known)
        commits.sort(key=lambda c: (known.get((c.position, c.token), last), -c.score, c.position))
        if self.sampler.one_by_one and not changes.rewritten:
            commits = commits[: last + 1]
            changes = _only(changes, {commit.position for commit in commits})
        canvas = self.view.canvas
        row = self._foreseen(after := canvas.take(0), changes)
        assert row.trace is not None
        filled = row.trace.steps[-1].fill
        start = int(canvas.prompt_length[0])
        return Proposal(
            changes=changes,
            commits=tuple(commits),
            accepted=sum((c.position, c.token) in known for c in commits),
            before=canvas.tokens[0, : canvas.length[0]],
            after=after.tokens[0, : after.length[0]],
            filled=None if filled is None else (filled[0] + start, filled[1]),
            ends=row.finished,
        )

    def _foreseen(self, canvas: Canvas, changes: RowChanges) -> Row:
        """Makes `canvas`, a copy, what the step would leave, and notes what happened."""
        sampler, state = self.sampler, self.state.take(0)
        record = Trace("", 0, canvas.mask_id, [Step(ForwardKind.STEP, 0, 0)])
        reopened = self.reopened + changes.rewritten * changes.remask_positions.size
        row = Row(Ticket(-1), canvas.prompts[0], 0.0, record, None, reopened=reopened)
        drawn = canvas.generators[0].get_state()
        write(sampler, canvas, state, HostDecision((changes,), self.settlement.updates))
        reshape(self.eos, canvas, 0, row, changes)
        done = changes.block_done or sampler.block_done(canvas, 0, state)
        go_on(sampler, self.eos, canvas, state, 0, row, changes, done, lambda: None)
        if row.finished:
            shorten(canvas, 0, row, int(canvas.kept[0]))
        canvas.generators[0].set_state(drawn)
        return row


def _pairs(positions: np.ndarray, tokens: np.ndarray) -> set[tuple[int, int]]:
    return set(zip(positions.tolist(), tokens.tolist(), strict=True))


def _commits(proposal: Proposal) -> list[tuple[int, int]]:
    return [(commit.position, commit.token) for commit in proposal.commits]


def _only(changes: RowChanges, positions: set[int]) -> RowChanges:
    """Without the commits elsewhere."""
    kept = np.isin(changes.commit_positions, list(positions))
    return replace(
        changes,
        commit_positions=changes.commit_positions[kept],
        commit_tokens=changes.commit_tokens[kept],
        commit_scores=changes.commit_scores[kept],
    )


def _writes_nothing(changes: RowChanges) -> bool:
    """Neither tokens nor a change of length or of the block."""
    sizes = (changes.commit_positions, changes.edit_positions, changes.remask_positions)
    return not any(part.size for part in sizes) and not changes.inserted


def _probability(view: View, position: int, token: int) -> float:
    """Of a token in this step's prediction; 0 where the position was not predicted."""
    found = (view.positions[0] == position).nonzero()
    if not len(found):
        return 0.0
    return float(view.logits[0, int(found[0, 0])].double().softmax(dim=-1)[token])

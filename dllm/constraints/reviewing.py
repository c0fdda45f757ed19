"""The CFG method as a reviewer: nothing is written after which the answer can't be finished."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np

from dllm.clock import NEVER, Deadline, Undecided
from dllm.constraints.canvases import CanvasChecker
from dllm.constraints.languages import Language
from dllm.errors import RunError
from dllm.models.tokenizers import Tokenizer
from dllm.step.canvas import Canvas
from dllm.step.constraint import (
    Accepted,
    Allowed,
    Kind,
    Proposal,
    Replacement,
    Unsatisfiable,
    Verdict,
    Vetoes,
)
from dllm.step.prediction import View


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How a reviewer goes about it; the options of `conf/constraint`."""

    patience: int | None
    """Rejections of one position in a step after which everything invalid there is refused; None =
    one token at a time."""
    budget: int | None
    """The rejection with which a sequence is given up; None = no limit."""
    on_timeout: Literal["reject", "accept"]
    check_timeout: float
    """Seconds of one check."""
    prefix: str


@dataclass
class CfgReviewer:
    """One sequence's checks."""

    checker: CanvasChecker
    conduct: Conduct
    language: Language
    tokenizer: Tokenizer
    sample_id: str
    start: int
    """Where the generation region begins."""
    counts: Counter[str] = field(default_factory=Counter)
    """Checks, lookaheads and time-outs of the review that is going on."""
    rejected: int = 0
    """Tokens so far."""
    finished: bool = False
    """Its end has been accepted."""
    refused: dict[int, int] = field(default_factory=dict)
    """Rejections by position, in the step `step`."""
    step: int = -1

    def review(self, view: View, proposal: Proposal) -> Verdict:
        self.counts = Counter(checks=0)
        return replace(self._verdict(view, proposal), **self.counts)

    def _verdict(self, view: View, proposal: Proposal) -> Verdict:
        canvas = view.canvas
        if canvas.step[0] != self.step:
            self.step, self.refused = int(canvas.step[0]), {}
        after = self.region(canvas, proposal.after)
        if self._fits(after) and (not proposal.ends or self.checker.finished(after)):
            self.finished = proposal.ends
            return Accepted()
        refused = self._refused(view, proposal)
        if refused is None:
            return self._unfinished(view, proposal)
        self.rejected += len({position for position, _ in refused.tokens})
        if self.conduct.budget is not None and self.rejected >= self.conduct.budget:
            return self.given_up(f"its budget of {self.conduct.budget} rejected tokens is spent")
        return refused

    def _refused(self, view: View, proposal: Proposal) -> Vetoes | None:
        """The first tokens that do not fit; None if all do."""
        canvas, changes = view.canvas, proposal.changes
        now = proposal.before.copy()
        now[changes.remask_positions] = canvas.mask_id
        for number, commit in enumerate(proposal.commits):
            now[commit.position] = commit.token
            if number < proposal.accepted or self._fits(self.region(canvas, now)):
                continue
            now[commit.position] = canvas.mask_id
            # What does not fit on top of the accepted ones would not fit later either.
            tokens = [(commit.position, commit.token)]
            for other in proposal.commits[number + 1 :]:
                now[other.position] = other.token
                if not self._fits(self.region(canvas, now)):
                    tokens.append((other.position, other.token))
                now[other.position] = canvas.mask_id
            return self._vetoes(view, now, tokens, number)
        tokens = []
        edits = zip(changes.edit_positions, changes.edit_tokens, strict=True)
        for position, token in ((int(p), int(t)) for p, t in edits):
            before, now[position] = now[position], token
            if not self._fits(self.region(canvas, now)):
                now[position] = before
                tokens.append((position, token))
        return self._vetoes(view, now, tokens, len(proposal.commits)) if tokens else None

    def _unfinished(self, view: View, proposal: Proposal) -> Verdict:
        """All tokens fit, but not what becomes of the sequence beside them."""
        kind = self._kind(proposal)
        if kind is not None:
            return Vetoes(kinds=frozenset((kind,)), accepted=len(proposal.commits))
        return self._completed(view, proposal)

    def _completed(self, view: View, proposal: Proposal) -> Verdict:
        """The sampler has no steps left: the masks become the likeliest tokens that fit, from left
        to right."""
        canvas = view.canvas
        now = canvas.tokens[0, : canvas.length[0]].copy()
        columns = {int(p): r for r, p in enumerate(view.positions[0].tolist())}
        written = {}
        for position in np.flatnonzero(now == canvas.mask_id).tolist():
            region = self.region(canvas, now)
            if not 0 <= position - self.start < len(region):
                continue
            self.counts["checks"] += 1
            allowed, _ = self.checker.allowed(region, position - self.start, NEVER)
            if not allowed.any():
                return self.given_up(f"nothing fits at {position}")
            token = int(np.flatnonzero(allowed)[0])
            if position in columns:
                scores = view.logits[0, columns[position]].double().cpu().numpy().copy()
                scores[: len(allowed)][~allowed] = -np.inf
                token = int(scores.argmax()) if np.isfinite(scores.max()) else token
            now[position] = written[position] = token
        return Replacement(tokens=written)

    def allowed(self, canvas: Canvas, position: int) -> Allowed:
        self.counts = Counter(checks=0)
        region = self.region(canvas, canvas.tokens[0, : canvas.length[0]])
        return Allowed(tokens=self._allowed(region, position), **self.counts)

    def region(self, canvas: Canvas, sequence: np.ndarray) -> np.ndarray:
        """The answer: without what is cut off in the end, with the room that it may grow into."""
        kept = min(int(canvas.kept[0]), int(canvas.limit[0]))
        region = sequence[self.start : kept]
        room = kept - self.start - len(region)
        return np.concatenate((region, np.full(room, canvas.mask_id))) if room else region

    def given_up(self, reason: str) -> Unsatisfiable:
        return Unsatisfiable(reason=f"the constraint is not satisfied: {reason}")

    def fork(self) -> Self:
        other = copy.copy(self)
        other.refused = dict(self.refused)
        return other

    def leave(self, sequence: np.ndarray) -> str | None:
        """A shortest valid text with what an unfinished answer holds; None for a finished one.

        Raises `RunError` if the finished answer is not valid after all.
        """
        if not self.finished:
            deadline = Deadline.after(self.conduct.check_timeout)
            found = self.checker.completion(sequence[self.start :], deadline)
            valid = found is not None and not self.language.complaint(self.conduct.prefix + found)
            return found if valid else None
        tokens = []
        for token in sequence[self.start :].tolist():
            if token in self.checker.ends:
                break
            tokens.append(token)
        while tokens and tokens[-1] == self.checker.mask_id:  # nothing is written any more
            tokens.pop()
        text = self.conduct.prefix + self.tokenizer.decode(tokens, skip_special_tokens=False)
        complaint = self.language.complaint(text)
        if complaint is not None:
            raise RunError(f"sample {self.sample_id}: the constraint's answer is {complaint}")
        return None

    def _fits(self, region: np.ndarray) -> bool:
        self.counts["checks"] += 1
        try:
            return self.checker.fits(region, Deadline.after(self.conduct.check_timeout))
        except Undecided:
            self.counts["timeouts"] += 1
            return self.conduct.on_timeout == "accept"

    def _vetoes(
        self, view: View, now: np.ndarray, tokens: list[tuple[int, int]], accepted: int
    ) -> Vetoes:
        canvas, patience = view.canvas, self.conduct.patience
        refused = list(tokens)
        for position, _ in tokens:
            self.refused[position] = self.refused.get(position, 0) + 1
            spent = patience is not None and self.refused[position] > patience
            if spent and now[position] == canvas.mask_id:
                refused += self._invalid(canvas, now, position)
        return Vetoes(tokens=tuple(refused), accepted=accepted)

    def _invalid(self, canvas: Canvas, now: np.ndarray, position: int) -> list[tuple[int, int]]:
        """Everything that can't stand at a masked position."""
        allowed = self._allowed(self.region(canvas, now), position)
        if allowed is None:
            return []
        return [(position, token) for token in np.flatnonzero(~allowed).tolist()]

    def _allowed(self, region: np.ndarray, position: int) -> np.ndarray | None:
        """What can stand at a masked position, over the vocabulary; None = not known."""
        self.counts["checks"] += 1
        if not 0 <= position - self.start < len(region):
            return None
        deadline = Deadline.after(self.conduct.check_timeout)
        allowed, left = self.checker.allowed(region, position - self.start, deadline)
        if left.any():
            self.counts["timeouts"] += 1
            # What is proven fits; with nothing proven, what is open is left to single checks.
            if self.conduct.on_timeout == "accept" or not allowed.any():
                allowed |= left
        return allowed

    def _kind(self, proposal: Proposal) -> Kind | None:
        """The change beside tokens to try without first, of those not left out yet."""
        changes = proposal.changes
        if changes.stop:
            return "stop"
        if changes.inserted:
            return "insert"
        if changes.length is not None:
            return "length"
        if (proposal.filled is not None or proposal.ends) and not changes.open_end:
            return "end"
        return None

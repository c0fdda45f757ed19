"""What a constraint is: it reviews everything that would be written, before it is written.

A `Constraint` is built from options; `bind` gives it the run's tokenizer and model. Each sequence
gets a `Reviewer` of its own (`enter`), which is asked about every decision and dropped with the
sequence (`leave`). `review` is shown the sequence's logits and a `Proposal`: what the sampler, the
progress guard and the end-of-answer policy would together make of the sequence. It answers

- `Accepted`: the proposal is written at once, nothing else comes in between; for a sampler that
  asks one by one (`Sampler.one_by_one`) the next proposal may be this one and a further commit;
- `Vetoes`: without these tokens, or without a kind of change. The sampler decides again for this
  sequence alone, on the same forward's logits without the refused tokens, and the reviewer is asked
  again. Nothing is written before it accepts;
- `Replacement`: what to write instead (a verified prefix, a whole block). It comes back for review
  once, with its consequences (`Proposal.rewritten`);
- `Unsatisfiable`: the sequence ends as a failure, e.g. because a budget is spent.

Rules. Commits of a parallel step are checked jointly in `Proposal.commits`' order: the first as if
it came alone, the second on top of the first, and so on. A reviewer that refuses the n-th says so
with `Vetoes(tokens=..., accepted=n - 1)`: what it accepted keeps its place at the head of the next
proposal's order, so that it need not be checked again. A veto must refuse something new, an answer
to a rewritten proposal must not be another rewriting: otherwise the sequence fails, never loops.
Before anything is proposed a sampler may ask what is `allowed` at a position, so as to compute no
branches that would be refused; nothing is promised of what else is decided in the same step. A
reviewer may remember what it was asked (caches, counts); `fork` gives an independent copy, on which
what-ifs are played (the cache audit). Only its own generator and the sequence's may be drawn from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

import numpy as np
from jaxtyping import Bool, Int

from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.step.canvas import Canvas, Prompt
from dllm.step.decision import RowChanges
from dllm.step.prediction import View


Kind = Literal["edit", "remask", "insert", "length", "stop", "end"]
"""Changes that can be left out of a decision: `length` cuts and grows, `stop` is the sampler's own
end of the answer, `end` the end-of-answer policy's (fill, cut and stop)."""


@dataclass(frozen=True)
class Commit:
    position: int
    token: int
    score: float
    """What the sampler ranked by, higher is better."""


@dataclass(frozen=True)
class Proposal:
    """What one decision would make of one sequence; positions are absolute (prompt included)."""

    changes: RowChanges
    """What is decided: commits, edits, remasks, insertions, a new length, a stop."""
    commits: tuple[Commit, ...]
    """The commits in the order in which they are to be checked: those already accepted, then from
    the highest score to the lowest, ties by position."""
    accepted: int
    """How many of the first commits the reviewer has accepted in this step."""
    before: Int[np.ndarray, "length"]
    """The sequence as it is."""
    after: Int[np.ndarray, "new_length"]
    """The sequence as it would be after the step: every write, cut and fill included."""
    filled: tuple[int, int] | None
    """(position, token): everything from there on is set to this token, which was not decided
    position by position (the end-of-answer policy, a growth with a token)."""
    ends: bool
    """The sequence would be finished after this step."""

    @property
    def rewritten(self) -> bool:
        """Whether this is the reviewer's own replacement."""
        return self.changes.rewritten


@dataclass(frozen=True, kw_only=True)
class _Counted:
    checks: int = 1
    """Single checks that the verdict took."""
    lookaheads: int = 0
    """Those that only tried likely fillings."""
    timeouts: int = 0
    """Those that ran out of time."""


@dataclass(frozen=True)
class Accepted(_Counted):
    pass


@dataclass(frozen=True)
class Vetoes(_Counted):
    tokens: tuple[tuple[int, int], ...] = ()
    """(position, token) that must not be written in this step; tokens that nobody proposed may be
    among them."""
    kinds: frozenset[Kind] = frozenset()
    """Kinds of change to leave out of this step."""
    accepted: int = 0
    """How many of the proposal's first commits are fine."""
    renormalise: bool = True
    """Confidences are those of the remaining tokens; otherwise those of all tokens, the refused
    ones can't be proposed all the same."""


@dataclass(frozen=True)
class Replacement(_Counted):
    tokens: Mapping[int, int] = field(default_factory=dict)
    """Token of each position to write instead of the proposal; the mask token masks it again. Only
    positions of the generation region."""


@dataclass(frozen=True)
class Unsatisfiable(_Counted):
    reason: str = ""
    """In one line."""


@dataclass(frozen=True)
class Allowed(_Counted):
    tokens: Bool[np.ndarray, "vocab"] | None = None
    """None = not known, e.g. because the time was over."""


Verdict = Accepted | Vetoes | Replacement | Unsatisfiable


class Reviewer(Protocol):
    """One sequence's constraint, from its entry to its end."""

    def review(self, view: View, proposal: Proposal) -> Verdict:
        """A verdict on what would be written.

        `view` holds this sequence only: `view.logits[0, r]` are the logits of position
        `view.positions[0, r]` (-1 = padding) without the refused tokens, `view.canvas` is the
        canvas before the decision.
        """
        ...

    def allowed(self, canvas: Canvas, position: int) -> Allowed:
        """Tokens that may stand at a masked position if nothing else changes; `canvas` holds this
        sequence only."""
        ...

    def fork(self) -> Self:
        """A copy that may be asked without a trace in this one."""
        ...

    def leave(self, sequence: Int[np.ndarray, "length"]) -> str | None:
        """Once, with the sequence as it ended; a text in which the constraint would complete the
        answer, or None."""
        ...


class BoundConstraint(Protocol):
    """A constraint that knows the run's tokens."""

    def check(self, prompt: Prompt) -> None:
        """Raises `ConfigError` for a prompt that the constraint can't go with, before it enters."""
        ...

    def enter(self, canvas: Canvas, row: int) -> Reviewer:
        """The reviewer of the sequence that has just entered as this row."""
        ...


class Constraint(Protocol):
    """What `conf/constraint/*.yaml` builds."""

    def bind(self, tokenizer: Tokenizer, spec: ModelSpec) -> BoundConstraint:
        """The constraint on this tokenizer's texts and this model's tokens; runs call it once.

        Raises `ConfigError` for options that don't go with them.
        """
        ...

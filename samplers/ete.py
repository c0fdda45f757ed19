"""Explore-Then-Exploit: a reconstruction after the abstract of "From Bits to Rounds" (arXiv
2511.21103), the only part that could be read.

Stated there: decoders that commit only what is sure gain few bits per round; committing across
blocks and exploring uncertain tokens raise them. All else is inferred and not the authors'
algorithm: after `base` has committed what it is sure of, the open position of the current block
with the highest entropy is tried with its most probable values, all in one forward. The value that
makes the most other positions sure is committed together with them, from what its branch has
computed: an exploration costs width (`aux_forwards`), not a round. Only where the value completes
its block, what a finite `ahead` then brings within reach waits for the next one.

The value need not be the model's first choice (mark "overruled"): accuracy has to be read beside
the bits of the path. A single candidate is committed at once, there being nothing to compare; so
`branches=1 position=max_conf trigger=stuck ahead=0` makes the rounds of `base`. Positions that
most likely end the answer are not explored where branches are compared: what follows an end is
sure, and worthless.

Where a constraint is in force, candidates are values that it lets stand on the canvas as it is,
their probabilities renormalised over these; a branch is computed for no other one, and the value
tried is reviewed before what follows from it. A review may still refuse more than was asked (a
lookahead, a check out of time): such a value loses its branch, and where all have lost, the next
step commits the best one that is allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.metrics.bits import Budget
from dllm.models.spec import ModelSpec
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Request
from dllm.step.prediction import View
from dllm.step.state import SamplerState, StateField
from samplers.parts.branches import Branches, picked
from samplers.parts.checks import in_unit_interval, not_below
from samplers.parts.proposers import Greedy
from samplers.parts.regions_ahead import CrossBlock
from samplers.parts.wrapping import Wrapper


@runtime_checkable
class Exploiting(Protocol):
    """A rule that says which candidates it is sure of, without the one that it commits in any
    case."""

    def sure(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]: ...


@dataclass(frozen=True)
class Exploration:
    """What each sequence tries."""

    row: Bool[Tensor, "batch rows"]
    """The position; none = nothing is tried."""
    chances: Float[Tensor, "batch vocab"]
    """ln of the raw probabilities of its values."""
    noise: Float[Tensor, "batch vocab"]
    """Gumbel noise by which values are drawn; 0 = the most probable ones."""

    def only(self, sequences: Bool[Tensor, "batch"]) -> "Exploration":
        """Of these sequences; the others try nothing."""
        return replace(self, row=self.row & sequences[:, None])


@dataclass(frozen=True, kw_only=True)
class ETE(Wrapper):
    ahead: int | None
    """Blocks after the current one in which positions are committed, too (>= 0); null = all."""
    trigger: Literal["always", "stuck", "never"]
    """Explore in every round, or where `base` was sure of fewer than `min_exploit` positions."""
    min_exploit: int
    """At least 1."""
    position: Literal["max_entropy", "min_conf", "max_conf", "leftmost", "random"]
    """Which open position is explored; ties: the leftmost."""
    branches: int
    """Values tried in one forward (M, >= 1)."""
    candidate_top_p: float
    """Values beyond this mass are left out, in [0, 1]; the first one stays."""
    candidate_ratio: float
    """Values less probable than this share of the first one are left out, in [0, 1]."""
    cascade: Literal["count", "bits", "total_entropy"]
    """What a branch is chosen for: positions that are sure, bits of entropy that these have lost,
    or the least entropy of all open positions."""
    likelihood_weight: float
    """Weight of ln p(value) beside it (lambda, >= 0)."""
    temperature: float
    """0 = the most probable values; above, they are drawn without replacement (Gumbel top-M) from
    p^(1 / temperature). What is sure is committed as ever."""
    explore_after_refresh: bool
    """Where `base` was sure of something, the next round commits nothing and chooses position and
    values with what was committed in view: a round more each time."""
    allow_end: bool
    """Explore end tokens, and positions where one is most likely; with one branch always so, since
    no cascade is compared."""
    ignore_ends: bool
    """Positions that are sure to hold an end token do not count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = type(self.base).__name__
        if not isinstance(self.base, Exploiting):
            raise ConfigError(
                f"sampler.base={rule} does not say what it is sure of (none that revokes tokens "
                "can): use threshold, factor, localleap, dinfer_threshold or credit"
            )
        if not isinstance(self.proposer, Greedy):
            raise ConfigError(
                f"sampler.base.proposer={type(self.proposer).__name__} draws at random: use greedy"
            )
        not_below("branches", self.branches, 1)
        not_below("min_exploit", self.min_exploit, 1)
        not_below("likelihood_weight", self.likelihood_weight, 0)
        not_below("temperature", self.temperature, 0)
        not_below("ahead", 0 if self.ahead is None else self.ahead, 0)
        in_unit_interval("candidate_top_p", self.candidate_top_p)
        in_unit_interval("candidate_ratio", self.candidate_ratio)
        object.__setattr__(self, "region", CrossBlock(self.base.region, self.ahead))
        object.__setattr__(self, "may_commit_nothing", True)
        if self.branches > 1 and self.trigger != "never":
            object.__setattr__(self, "needs", self.base.needs | {"hypotheses"})

    def fields(self) -> tuple[StateField, ...]:
        return (
            *self.base.fields(),
            StateField("refreshing", (), torch.bool),
            # All that was tried last has been refused.
            StateField("refused", (), torch.bool),
            StateField("explored", (), torch.int64, fill=-1),
            # Of the explored position; [batch, vocab] from the first one on.
            StateField("chances", (1,), torch.float64),
            StateField("noise", (1,), torch.float64),
            # Bits of every position before it is explored what becomes of them.
            StateField("entropy", ("canvas",), torch.float64),
        )

    def check_model(self, spec: ModelSpec) -> None:
        super().check_model(spec)
        if self.ahead != 0 and spec.attention == "block_causal":
            raise ConfigError(
                f"sampler.ahead={'null' if self.ahead is None else self.ahead}: with block-causal "
                "attention no block sees the next ones; use sampler.ahead=0"
            )

    def max_steps(self, positions: int) -> int:
        """A step commits something, or what it decides to explore is committed by the next one, or
        if all of that was refused by the one after; before that, a step may only look again."""
        return (4 if self.explore_after_refresh else 3) * positions

    def budget(self) -> Budget | None:
        """An explored token may carry any number of bits."""
        return self.base.budget() if self.trigger == "never" else None

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        request = super().plan(canvas, eligible, state)
        at = state["explored"].cpu().numpy()
        # What a constraint or the end of the answer has decided meanwhile is not explored.
        tried = (at >= 0) & eligible[np.arange(canvas.batch), at]
        if not tried.any():
            return request
        chances = state["chances"].clone()
        for row in tried.nonzero()[0].tolist():
            allowed = canvas.allowed(row, int(at[row]))
            # Where nothing is left to choose from, the review has the word.
            if allowed is not None and not chances[row, allowed].isneginf().all():
                chances[row, ~allowed] = -torch.inf
        values = self._values(canvas, chances, state["noise"]).cpu().numpy()
        width = int((values[tried] >= 0).sum(axis=1).max())
        branches = np.full((canvas.batch, width, canvas.capacity), -1, dtype=np.int64)
        branches[~tried, 0] = canvas.tokens[~tried]
        for row in tried.nonzero()[0]:
            for number, value in enumerate(values[row][values[row] >= 0]):
                branches[row, number] = canvas.tokens[row]
                branches[row, number, at[row]] = value
        return replace(request, branches=branches, droppable=True)

    def observe(self, view: View, state: SamplerState) -> None:
        """The rule's memory follows the branch that is adopted: see `select`."""

    def select(self, view: View, state: SamplerState) -> Decision:
        if not view.positions.shape[1]:
            return self.base.select(view, state)
        branches = Branches.of(view)
        count = branches.tokens.shape[1]
        sequences, memory = branches.as_sequences(), state.branched(count)
        self.base.observe(sequences, memory)
        read = self.base.transform(sequences, memory)
        tokens = self.proposer.propose(read)
        score = self.base.score(read, tokens)
        assert isinstance(self.base, Exploiting)
        sure = self.base.sure(score, read, memory)

        explored = view.candidates & (view.positions == state["explored"][:, None])
        there = (branches.tokens >= 0).any(dim=2)
        values = branches.tokens.where(explored[:, None], -1).amax(dim=2)
        ln_p = state["chances"].gather(1, values.clamp(min=0, max=state["chances"].shape[1] - 1))
        rank = self._rank(branches, sequences, sure, tokens, state)
        rank = rank + (self.likelihood_weight * ln_p).where(explored.any(dim=1)[:, None], 0)
        choice = rank.masked_fill(~there, -torch.inf).argmax(dim=1)
        sequence = torch.arange(len(choice), device=view.device)
        logits = branches.logits[sequence, choice]
        tokens, score, sure = (picked(branches.split(x), choice) for x in (tokens, score, sure))
        # Of a sequence whose branches were all refused, nothing has been predicted: it commits
        # nothing, and the next step tries one value, which is refused and replaced within the step.
        refused = ~there.any(dim=1)
        sure &= ~refused[:, None]
        explored &= ~refused[:, None]
        value, probability = (
            values[sequence, choice][:, None],
            ln_p[sequence, choice][:, None].exp(),
        )
        tokens = value.where(explored, tokens)
        # All else follows from what was tried: that is to be reviewed first.
        score = (1 + probability).where(explored, score.double())
        overruled = explored & (choice > 0)[:, None]

        entropy = scores.entropy(logits, self.conf_dtype).double() / log(2)
        refreshed = state["refreshing"]
        exploited = sure.sum(dim=1).where(~refreshed, 0)
        following = self._explore(view, logits, score, entropy, explored | sure, exploited)
        explores = following.row.any(dim=1)
        sure &= ~(refreshed & explores)[:, None]
        refreshing = explores & sure.any(dim=1) & self.explore_after_refresh
        following = following.only(~refreshing & ~refused)
        candidates = self._values(view.canvas, following.chances, following.noise)
        single = (candidates >= 0).sum(dim=1) == 1
        at_once = following.row & (single | state["refused"])[:, None]
        tokens = candidates[:, :1].where(at_once, tokens)
        commit = sure | explored | at_once

        def remembered(field: StateField) -> Tensor:
            """What the adopted branch has left of the base's memory."""
            left, before = memory[field.name][sequence * count + choice], state[field.name]
            if not refused.any():  # at first it has no shape yet
                return left
            return left.where(~refused.view(-1, *[1] * (left.dim() - 1)), before)

        idle = ~(commit | following.row).any(dim=1, keepdim=True)
        forced = scores.best(score, view.candidates) & idle & ~refused[:, None]
        where = view.positions.where(following.row & ~at_once, -1).amax(dim=1)
        return Decision(
            commit=commit | forced,
            tokens=tokens,
            score=score,
            probability=probability.where(explored, torch.nan).expand(explored.shape),
            adopt=choice,
            tried=values,
            worth=rank,
            marks={"explored": explored | at_once, "overruled": overruled, "forced": forced},
            updates={
                **{f.name: remembered(f) for f in self.base.fields()},
                "refreshing": refreshing,
                "refused": refused,
                "explored": where,
                "chances": following.chances,
                "noise": following.noise,
                "entropy": view.on_canvas(entropy, state["entropy"]),
            },
        )

    @property
    def _spares_ends(self) -> bool:
        return self.branches > 1 and not self.allow_end

    def _rank(
        self,
        branches: Branches,
        sequences: View,
        sure: Bool[Tensor, "entries rows"],
        tokens: Int[Tensor, "entries rows"],
        state: SamplerState,
    ) -> Float[Tensor, "batch branches"]:
        """How much each branch is worth."""
        counted = branches.split(
            sure & ~self._is_end(sequences, tokens) if self.ignore_ends else sure
        )
        if self.cascade == "count":
            return counted.sum(dim=2).double()
        entropy = scores.entropy(sequences.logits, self.conf_dtype).double() / log(2)
        entropy = branches.split(entropy)
        if self.cascade == "total_entropy":
            return -entropy.where(branches.split(sequences.candidates), 0).sum(dim=2)
        before = state["entropy"].gather(1, branches.view.positions.clamp(min=0))
        return (before[:, None] - entropy).where(counted, 0).sum(dim=2)

    def _explore(
        self,
        view: View,
        logits: Float[Tensor, "batch rows vocab"],
        score: Float[Tensor, "batch rows"],
        entropy: Float[Tensor, "batch rows"],
        committed: Bool[Tensor, "batch rows"],
        exploited: Int[Tensor, "batch"],
    ) -> Exploration:
        """The position to explore next, from the adopted prediction."""
        canvas, still_open = view.canvas, view.candidates & ~committed
        wanted = still_open & self._in_leftmost_block(view, still_open)
        if self.trigger == "stuck":
            wanted = wanted & (exploited < self.min_exploit)[:, None]
        elif self.trigger == "never":
            wanted = torch.zeros_like(wanted)
        if self._spares_ends:
            wanted = wanted & ~self._is_end(view, logits.argmax(dim=-1))
        key = {
            "max_entropy": lambda: entropy,
            "min_conf": lambda: -score,
            "max_conf": lambda: score,
            "leftmost": lambda: -view.positions.double(),
            "random": view.uniform,
        }[self.position]()
        row = scores.best(key, wanted)
        index = row.double().argmax(dim=1)
        chances = logits[torch.arange(len(index), device=view.device), index].double()
        chances = chances.log_softmax(dim=-1).where(row.any(dim=1, keepdim=True), 0)
        noise = torch.zeros_like(chances)
        for b in row.any(dim=1).nonzero().flatten().tolist() if self.temperature > 0 else ():
            uniform = torch.rand(
                noise.shape[1],
                generator=canvas.generators[b],
                dtype=noise.dtype,
                device=noise.device,
            )
            noise[b] = -(-uniform.log()).log()
        return Exploration(row, chances, noise)

    def _values(
        self,
        canvas: Canvas,
        chances: Float[Tensor, "batch vocab"],
        noise: Float[Tensor, "batch vocab"],
    ) -> Int[Tensor, "batch branches"]:
        """Candidates from the most probable one on, at least one; -1 = no more."""
        p = chances.softmax(dim=-1)
        p[:, canvas.mask_id] = 0
        for b in range(canvas.batch) if self._spares_ends else ():
            ends = list(canvas.ends(b))
            # A constraint may leave nothing else.
            if p[b].sum() > p[b, ends].sum():
                p[b, ends] = 0
        p, values = p.sort(dim=-1, descending=True, stable=True)
        kept = (p > 0) & (p >= self.candidate_ratio * p[:, :1])
        kept[:, 1:] &= p.cumsum(dim=1)[:, :-1] < self.candidate_top_p
        if self.temperature > 0:
            # Up to M of them without replacement; what is not kept stays behind what is.
            key = p.log() / self.temperature + noise.gather(1, values)
            order = key.masked_fill(~kept, -torch.inf).argsort(dim=1, descending=True, stable=True)
            chosen = order[:, : self.branches].sort(dim=1).values
            values, kept = values.gather(1, chosen), kept.gather(1, chosen)
        return values.where(kept, -1)[:, : self.branches]

    def _in_leftmost_block(
        self, view: View, still_open: Bool[Tensor, "batch rows"]
    ) -> Bool[Tensor, "batch rows"]:
        """Rows up to the end of the block that holds the first open position."""
        canvas = view.canvas
        end, size = (
            view.column(canvas.block_end),
            view.column(canvas.block_end - canvas.block_start),
        )
        first = view.positions.where(still_open, canvas.capacity).amin(dim=1, keepdim=True)
        beyond = ((first - end) // size + 1).clamp(min=0)
        return view.positions < end + beyond * size

    def _is_end(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Bool[Tensor, "batch rows"]:
        """Rows whose token ends their sequence's answer."""
        ends: Sequence[tuple[int, ...]] = [view.canvas.ends(b) for b in range(view.canvas.batch)]
        return torch.stack(
            [torch.isin(own, own.new_tensor(end)) for own, end in zip(tokens, ends, strict=True)]
        )

"""What a step decides: which tokens to commit, to remask, to edit, and whether to stop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.step.transfer import fetched


@dataclass(frozen=True)
class Decision:
    """A sampler's answer to one view; axes are those of `View.positions`."""

    commit: Bool[Tensor, "batch rows"]
    """Subset of the candidates."""
    tokens: Int[Tensor, "batch rows"]
    """Proposed token of every row; read where `commit` or `edit` holds."""
    score: Float[Tensor, "batch rows"]
    """What was ranked, higher is better; the progress guard falls back to it."""
    probability: Float[Tensor, "batch rows"] | None = None
    """For the trace, raw probabilities of tokens that no branch of the request predicts (they were
    put into all of them), as an earlier forward gave them; NaN elsewhere."""
    remask: Bool[Tensor, "batch rows"] | None = None
    """Decided rows to mask again."""
    edit: Bool[Tensor, "batch rows"] | None = None
    """Decided rows to overwrite with `tokens`."""
    block_done: Bool[Tensor, "batch"] | None = None
    """Rows whose block ends now although masks may be left."""
    stop: Bool[Tensor, "batch"] | None = None
    """Rows whose answer ends now."""
    insert: Int[Tensor, "batch rows"] | None = None
    """Masks put after each row; what follows moves right."""
    length: Int[Tensor, "batch"] | None = None
    """Length of each sequence (prompt included) after this step: what lies beyond is cut off, what
    is missing is masked."""
    tail: Int[Tensor, "batch"] | None = None
    """Token that `length` adds instead of masks; -1 = masks."""
    adopt: Int[Tensor, "batch"] | None = None
    """Branch of the request whose keys and values stay in the store; None = the first. Its tokens
    are written as any others are: by `commit`, `edit` and `remask`."""
    tried: Int[Tensor, "batch branches"] | None = None
    """For the trace, the value that each branch of the request tried; -1 = none."""
    worth: Float[Tensor, "batch branches"] | None = None
    """For the trace, what each of them was compared by."""
    noise: Int[Tensor, "batch rows"] | None = None
    """What the model reads from now on where a row stays undecided (models without a mask
    token)."""
    marks: Mapping[str, Bool[Tensor, "batch rows"]] = field(default_factory=dict)
    """Named sets of rows that explain the decision, for the trace."""
    updates: Mapping[str, Tensor] = field(default_factory=dict)
    """State fields replaced when (and only if) this decision is applied."""


@dataclass(frozen=True)
class RowChanges:
    """One sequence's part of a decision, on the host, as absolute positions."""

    commit_positions: Int[np.ndarray, "n"]
    commit_tokens: Int[np.ndarray, "n"]
    commit_scores: Float[np.ndarray, "n"]
    remask_positions: Int[np.ndarray, "m"]
    edit_positions: Int[np.ndarray, "k"]
    edit_tokens: Int[np.ndarray, "k"]
    forced: bool
    """The progress guard committed the best candidate because the sampler chose none."""
    marks: Mapping[str, Int[np.ndarray, "n"]] = field(default_factory=dict)
    """Positions of the decision's marks; empty sets are left out."""
    inserted: tuple[tuple[int, int], ...] = ()
    """(position, masks put after it), from right to left."""
    block_done: bool = False
    """The block ends now although masks may be left."""
    stop: bool = False
    """The answer ends now."""
    length: int | None = None
    """Length of the sequence (prompt included) after this step; None = as it is."""
    tail: int = -1
    """Token that `length` adds; -1 = masks."""
    adopt: int = 0
    """Branch that is adopted."""
    tried: tuple[tuple[int, float], ...] = ()
    """(value, worth) of the branches that tried one."""
    probabilities: Mapping[int, float] = field(default_factory=dict)
    """Raw probabilities of committed tokens, by position, where the sampler supplies them."""
    noise: tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]] | None = None
    """Positions and what the model reads there from now on, unless they are committed."""
    open_end: bool = False
    """A constraint keeps the end-of-answer policy out of this step."""
    rewritten: bool = False
    """A constraint's own choice in place of the sampler's."""

    @property
    def net(self) -> int:
        return self.commit_positions.size - self.remask_positions.size


@dataclass(frozen=True)
class HostDecision:
    rows: tuple[RowChanges, ...]
    updates: Mapping[str, Tensor]


_NONE = np.zeros(0, dtype=np.int64)

NO_CHANGES = RowChanges(_NONE, _NONE, np.zeros(0), _NONE, _NONE, _NONE, forced=False)


def to_host(
    decision: Decision,
    positions: Int[np.ndarray, "batch rows"],
    candidates: Bool[Tensor, "batch rows"],
    guard: bool,
    given: Bool[Tensor, "batch rows"] | None,
) -> HostDecision:
    """Brings a decision to the host, without remasks and edits of given rows, and enforces
    progress.

    With `guard`, a row that has candidates but does not commit more than it revokes gets its best
    candidates (highest score, then lowest position) committed as well: no loop can be endless.
    """
    told = {name: part for name, part in vars(decision).items() if isinstance(part, Tensor)}
    if given is not None:
        told |= {name: told[name] & ~given for name in ("remask", "edit") if name in told}
    open_rows, *parts = fetched([candidates, *told.values(), *decision.marks.values()])
    marked = dict(zip(decision.marks, parts[len(told) :], strict=True))
    host = dict(zip(told, parts, strict=False))
    commit, tokens, score = host.pop("commit"), host.pop("tokens"), host.pop("score")
    remask, edit = host.pop("remask", None), host.pop("edit", None)
    rows = []
    for b, own in enumerate(positions):
        chosen = commit[b].nonzero()[0]
        revoked = _NONE if remask is None else remask[b].nonzero()[0]
        edited = _NONE if edit is None else edit[b].nonzero()[0]
        forced = False
        if guard and chosen.size <= revoked.size and open_rows[b].any():
            ranked = np.where(open_rows[b] & ~commit[b], score[b], -np.inf)
            missing = revoked.size - chosen.size + 1
            extra = np.argsort(-ranked, kind="stable")[:missing]
            extra = extra[open_rows[b][extra] & ~commit[b][extra]]
            chosen = np.sort(np.concatenate((chosen, extra)))
            # Fewer candidates than revocations: only the least sure of these are revoked.
            weakest = np.argsort(score[b][revoked], kind="stable")[: chosen.size - 1]
            revoked = revoked[np.sort(weakest)]
            forced = True
        rarer = {name: part[b] for name, part in host.items()}
        rows.append(
            RowChanges(
                commit_positions=own[chosen],
                commit_tokens=tokens[b][chosen],
                commit_scores=score[b][chosen],
                remask_positions=own[revoked] if revoked.size else _NONE,
                edit_positions=own[edited] if edited.size else _NONE,
                edit_tokens=tokens[b][edited] if edited.size else _NONE,
                forced=forced,
                marks={k: own[rows_[b]] for k, rows_ in marked.items() if rows_[b].any()},
                **(_rarer(rarer, own, chosen) if rarer else {}),
            )
        )
    return HostDecision(tuple(rows), decision.updates)


def _rarer(
    told: Mapping[str, np.ndarray], positions: Int[np.ndarray, "rows"], chosen: Int[np.ndarray, "n"]
) -> dict[str, Any]:
    """What few rules say about one sequence, as fields of its changes."""
    found: dict[str, Any] = {
        name: told[name].item()
        for name in ("block_done", "stop", "length", "tail", "adopt")
        if name in told
    }
    if "insert" in told:
        found["inserted"] = _inserted(positions, told["insert"])
    if "tried" in told and "worth" in told:
        pairs = zip(told["tried"].tolist(), told["worth"].tolist(), strict=True)
        found["tried"] = tuple((value, worth) for value, worth in pairs if value >= 0)
    if "noise" in told:
        own = positions >= 0
        found["noise"] = positions[own], told["noise"][own]
    if "probability" in told:
        known = chosen[~np.isnan(told["probability"][chosen])]
        probable = told["probability"][known].tolist()
        found["probabilities"] = dict(zip(positions[known].tolist(), probable, strict=True))
    return found


def _inserted(
    positions: Int[np.ndarray, "rows"], counts: Int[np.ndarray, "rows"]
) -> tuple[tuple[int, int], ...]:
    # From right to left, so that an insertion leaves the positions of the others as they are.
    return tuple((int(positions[r]), int(counts[r])) for r in counts.nonzero()[0][::-1])

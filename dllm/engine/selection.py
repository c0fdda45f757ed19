"""From a prediction to a decision: what the sampler sees, and what becomes of it under review."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int

from dllm.engine.review import Hearing
from dllm.engine.settlement import Settlement
from dllm.step.canvas import Canvas
from dllm.step.constraint import Reviewer
from dllm.step.decision import HostDecision, to_host
from dllm.step.eos import EosPolicy
from dllm.step.plan import Request
from dllm.step.prediction import Prediction, View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from dllm.step.transfer import fetched, sent


def seen(
    canvas: Canvas,
    request: Request,
    eligible: Bool[np.ndarray, "batch canvas"],
    prediction: Prediction,
) -> View:
    """The prediction as the sampler sees it: rows are the request's positions."""
    positions, logits = request.positions, prediction.logits
    batch, device = len(positions), logits.device
    masked = eligible[np.arange(batch)[:, None], positions] & (positions >= 0)
    candidates = sent(torch.from_numpy(masked), device)
    branches, branch_logits, stale = None, None, None
    if prediction.valid is not None:
        valid = prediction.valid[:batch]
        candidates, stale = candidates & valid, ~valid
    if request.branches is not None:
        branches = sent(torch.from_numpy(request.branches), device)
        branch_logits = logits.unflatten(0, (branches.shape[1], batch)).transpose(0, 1)
        logits = logits[:batch]
    rows = sent(torch.from_numpy(positions), device)
    return View(canvas, rows, logits, candidates, branches, branch_logits, stale)


def sound(view: View) -> tuple[View, Sequence[int]]:
    """The view without what no rule can decide on, and the sequences whose logits hold NaN or +inf.

    A mask token that would be the proposal is taken out of the running: committing it would change
    nothing, for ever.
    """
    if view.positions.shape[1] == 0:
        return view, ()
    highest, token = fetched(view.top)
    finite, masks = np.isfinite(highest), token == view.canvas.mask_id
    if view.branches is not None and view.branch_logits is not None:
        # Absent ones (-1) predict nothing, whatever their logits.
        bad = ~view.branch_logits.amax(dim=-1).isfinite() & (view.branches[..., :1] >= 0)
        finite &= ~bad.any(dim=1).cpu().numpy()
    if finite.all() and not masks.any():
        return view, ()
    (candidates,) = fetched((view.candidates,))
    endless, masks = candidates & ~finite, candidates & masks
    if not (endless.any() or masks.any()):
        return view, ()
    logits = view.logits.clone()
    hidden = sent(torch.from_numpy(masks), view.device)
    logits[..., view.canvas.mask_id].masked_fill_(hidden, -torch.inf)
    return view.with_logits(logits), np.flatnonzero(endless.any(axis=1)).tolist()


def levelled(view: View, sequences: Sequence[int]) -> View:
    """The view with equal logits for sequences that were given up, so that no rule has to cope with
    NaN and no trace holds any."""
    given_up, branch_logits = list(sequences), view.branch_logits
    logits = view.logits.clone()
    logits[given_up] = 0
    if branch_logits is not None:
        branch_logits = branch_logits.clone()
        branch_logits[given_up] = 0
    return replace(view, logits=logits, branch_logits=branch_logits)


def decide(
    sampler: Sampler,
    eos: EosPolicy,
    view: View,
    state: SamplerState,
    positions: Int[np.ndarray, "batch rows"],
    reviewers: Sequence[Reviewer | None],
    reopened: Sequence[int],
) -> tuple[HostDecision, dict[int, Settlement]]:
    """The decision to which no reviewer objects, and what was settled for the sequences that were
    heard.

    The mask token is always refused (a proposer that samples may draw it). A sequence whose
    constraint can't be satisfied gets no changes and a failure.
    """
    canvas, guard = view.canvas, not sampler.may_commit_nothing
    drawn = [generator.get_state() for generator in canvas.generators]
    decision = sampler.select(view, state)
    host = to_host(decision, positions, view.candidates, guard, view.given)
    heard = [
        b
        for b, changes in enumerate(host.rows)
        if reviewers[b] is not None
        or canvas.mask_id in changes.commit_tokens.tolist()
        or canvas.mask_id in changes.edit_tokens.tolist()
    ]
    if not heard:
        return host, {}
    own = [
        {name: value[b : b + 1] for name, value in host.updates.items()}
        for b in range(canvas.batch)
    ]
    rows, settled = list(host.rows), {b: Settlement(host.rows[b], own[b]) for b in heard}
    for b, settlement in settled.items():
        Hearing(
            sampler,
            eos,
            view.take(b),
            state.take(b),
            drawn[b],
            reviewers[b],
            reopened[b],
            settlement,
        ).run()
        rows[b], own[b] = settlement.changes, settlement.updates
    updates = {
        name: state.stacked(
            name, [updates.get(name, state[name][b : b + 1]) for b, updates in enumerate(own)]
        )
        for name in {name for updates in own for name in updates}
    }
    return HostDecision(tuple(rows), updates), settled

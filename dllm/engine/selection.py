"""From a prediction to a decision: what the sampler sees, and what becomes of it under review."""

from collections.abc import Sequence

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


def sound(view: View) -> tuple[View, Int[np.ndarray, "broken"]]:
    """The view without what no rule can decide on, and the sequences whose logits hold NaN or +inf.

    A mask token that would be the proposal is taken out of the running: committing it would change
    nothing, for ever.
    """
    none = np.zeros(0, dtype=np.int64)
    if view.positions.shape[1] == 0:
        return view, none
    highest, token, candidates = fetched((*view.top, view.candidates))
    endless, masks = ~np.isfinite(highest), candidates & (token == view.canvas.mask_id)
    if view.branches is not None and view.branch_logits is not None:
        # Absent ones (-1) predict nothing, whatever their logits.
        bad = ~view.branch_logits.amax(dim=-1).isfinite() & (view.branches[..., :1] >= 0)
        endless |= bad.any(dim=1).cpu().numpy()
    endless &= candidates
    if not (endless | masks).any():
        return view, none
    logits = view.logits.clone()
    hidden = sent(torch.from_numpy(masks), view.device)
    logits[..., view.canvas.mask_id].masked_fill_(hidden, -torch.inf)
    return view.with_logits(logits), np.flatnonzero(endless.any(axis=1))


def decide(
    sampler: Sampler,
    eos: EosPolicy,
    view: View,
    state: SamplerState,
    positions: Int[np.ndarray, "batch rows"],
    reviewers: Sequence[Reviewer | None],
    reopened: Sequence[int],
) -> tuple[HostDecision, list[Settlement]]:
    """The decision to which no reviewer objects, and what they said.

    The mask token is always refused (a proposer that samples may draw it). A sequence whose
    constraint can't be satisfied gets no changes and a failure.
    """
    canvas, guard = view.canvas, not sampler.may_commit_nothing
    drawn = [generator.get_state() for generator in canvas.generators]
    decision = sampler.select(view, state)
    host = to_host(decision, positions, view.candidates, guard, view.given)
    settled = [
        Settlement(changes, {name: value[b : b + 1] for name, value in host.updates.items()})
        for b, changes in enumerate(host.rows)
    ]
    heard = [
        b
        for b, changes in enumerate(host.rows)
        if reviewers[b] is not None
        or canvas.mask_id in changes.commit_tokens.tolist()
        or canvas.mask_id in changes.edit_tokens.tolist()
    ]
    if not heard:
        return host, settled
    for b in heard:
        Hearing(
            sampler,
            eos,
            view.take(b),
            state.take(b),
            drawn[b],
            reviewers[b],
            reopened[b],
            settled[b],
        ).run()
    updates = {
        name: state.stacked(
            name, [s.updates.get(name, state[name][b : b + 1]) for b, s in enumerate(settled)]
        )
        for name in {name for s in settled for name in s.updates}
    }
    return HostDecision(tuple(s.changes for s in settled), updates), settled

"""From a prediction to a decision: what the sampler sees, and asking again after every veto."""

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Int

from dllm.step.canvas import Canvas
from dllm.step.decision import HostDecision, to_host
from dllm.step.plan import Request
from dllm.step.prediction import Prediction, View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


class Constraint(Protocol):
    """Refuses tokens; asked after every selection, before anything is written."""

    def veto(self, canvas: Canvas, decision: HostDecision) -> list[tuple[int, int, int]]:
        """(row, position, token) of every refused commit; empty = accepted."""
        ...


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
    candidates = torch.from_numpy(masked).to(device)
    hypotheses, drafts, stale = None, None, None
    if prediction.valid is not None:
        valid = prediction.valid[:batch]
        candidates, stale = candidates & valid, ~valid
    if request.hypotheses is not None:
        extra = request.hypotheses.shape[1]
        hypotheses = logits[batch:].unflatten(0, (extra, batch)).transpose(0, 1)
        logits = logits[:batch]
        drafts = torch.from_numpy(request.hypotheses).to(device)
    rows = torch.from_numpy(positions).to(device)
    return View(canvas, rows, logits, candidates, hypotheses, drafts, stale)


def sound(view: View) -> tuple[View, Int[np.ndarray, "broken"]]:
    """The view without what no rule can decide on, and the sequences whose logits hold NaN or +inf.

    A mask token that would be the proposal is taken out of the running: committing it would change
    nothing, for ever.
    """
    none = np.zeros(0, dtype=np.int64)
    if view.positions.shape[1] == 0:
        return view, none
    highest, token = view.top
    candidates = view.candidates.cpu().numpy()
    endless = ~np.isfinite(highest.double().cpu().numpy())
    if view.hypotheses is not None and view.drafts is not None:
        # Absent ones (-1) predict nothing, whatever their logits.
        bad = ~view.hypotheses.amax(dim=-1).isfinite() & (view.drafts[..., :1] >= 0)
        endless |= bad.any(dim=1).cpu().numpy()
    masks = token.cpu().numpy() == view.canvas.mask_id
    if not (candidates & (endless | masks)).any():
        return view, none
    broken = np.flatnonzero((candidates & endless).any(axis=1))
    logits = view.logits.clone()
    gone = torch.from_numpy(candidates & masks).to(view.device)
    logits[..., view.canvas.mask_id].masked_fill_(gone, -torch.inf)
    return view.with_logits(logits), broken


def decide(
    sampler: Sampler,
    view: View,
    state: SamplerState,
    positions: Int[np.ndarray, "batch rows"],
    constraint: Constraint | None,
) -> HostDecision:
    """The sampler's decision once nobody objects; every veto removes a token, so that this ends.

    The mask token is always refused (a proposer that samples may draw it). Each selection of a step
    draws the same random numbers, so that a veto leaves the other sequences as they were.
    """
    canvas, guard = view.canvas, not sampler.may_commit_nothing
    drawn = [generator.get_state() for generator in canvas.generators]
    while True:
        decision = sampler.select(view, state)
        host = to_host(decision, positions, view.candidates.cpu().numpy(), guard)
        vetoed = [
            (b, int(position), canvas.mask_id)
            for b, row in enumerate(host.rows)
            for position in row.commit_positions[row.commit_tokens == canvas.mask_id]
        ]
        if constraint is not None:
            vetoed += constraint.veto(canvas, host)
        if not vetoed:
            return host
        refused = torch.zeros_like(view.logits, dtype=torch.bool)
        for b, position, token in vetoed:
            refused[b, int((positions[b] == position).argmax()), token] = True
        view = view.veto(refused)
        for generator, before in zip(canvas.generators, drawn, strict=True):
            generator.set_state(before)

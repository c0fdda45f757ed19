"""What an approximate cache costs: stale slots in every forward, and on demand what they
changed."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dllm.cache.none import NoCache
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.step.canvas import Canvas
from dllm.step.decision import HostDecision, RowChanges
from dllm.step.plan import Plan, Request
from dllm.step.prediction import Prediction, View


@dataclass(frozen=True)
class Staleness:
    """Stored slots that one forward attends to."""

    attended: Int[np.ndarray, "batch"]
    stale: Int[np.ndarray, "batch"]
    """Those computed from a token that the canvas no longer holds."""


def staleness(plan: Plan, canvas: Canvas, store: KVStore) -> Staleness:
    """Of the real canvases, before the forward writes anything."""
    batch = canvas.batch
    valid, token = store.valid.numpy(), store.token.numpy()
    entry, row, slot = plan.real
    if plan.partial is not None:
        seen = valid & (np.arange(store.slots) < canvas.length[:, None])
        # The rows that each layer picks are taken for stale: they are not known in advance.
        fed = plan.partial.whole.cpu().numpy()[entry, row]
    elif plan.visible is not None:
        seen = valid & plan.visible.numpy()[:batch]
        fed = entry < batch
    else:
        none = np.zeros(batch, dtype=np.int64)
        return Staleness(none, none)
    seen[entry[fed], slot[fed]] = False
    old = seen[:, : canvas.capacity] & (token[:, : canvas.capacity] != canvas.tokens)
    return Staleness(seen.sum(axis=1), old.sum(axis=1))


@dataclass(frozen=True)
class Finding:
    """One step of one sequence against the cache-free forward of the same canvas."""

    kl: float
    """Mean over the wanted masks of KL(cache-free || cached), in nats."""
    changed: bool
    """Whether the decision would have been another one."""


class Audit:
    """Predicts without a cache; its forwards are not counted."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.reference = NoCache()
        self.reference.begin(predictor.spec)

    def predict(self, canvas: Canvas, request: Request) -> Prediction:
        plan = self.reference.plan(canvas, request, None)[-1]
        prediction = self.predictor.predict(plan, None)
        assert prediction is not None, "a step's plan predicts"
        return prediction


def findings(
    view: View, free_view: View, free: HostDecision, decision: HostDecision
) -> list[Finding | None]:
    """The step's view and decision against the cache-free ones; one finding per sequence, None
    where nothing was wanted."""
    shared = view.candidates & free_view.candidates
    p, q = (_log_probabilities(v) for v in (free_view, view))
    # Tokens that are ruled out on either side have no share in the divergence.
    each = (p.exp() * (p - q).nan_to_num(0, 0, 0)).sum(dim=-1)
    found: list[Finding | None] = []
    for row in range(view.canvas.batch):
        if not shared[row].any():
            found.append(None)
            continue
        kl = float(each[row, shared[row]].mean().clamp(min=0))
        ours, other = (_committed(d.rows[row]) for d in (decision, free))
        found.append(Finding(kl, ours != other))
    return found


def _log_probabilities(view: View) -> Tensor:
    never = torch.tensor([view.canvas.mask_id], device=view.device)
    return view.logits.double().index_fill(-1, never, -torch.inf).log_softmax(dim=-1)


def _committed(changes: RowChanges) -> list[tuple[int, int]]:
    return list(zip(changes.commit_positions, changes.commit_tokens, strict=True))

"""One forward of a plan: rows in, aligned logits of the wanted positions out."""

import torch
from torch import Tensor

from dllm.cache.partial import PartialForward
from dllm.cache.rollout import AttentionRollout
from dllm.cache.store import KVStore
from dllm.models.transformer import Transformer
from dllm.plan import Plan
from dllm.prediction import Prediction


class Predictor:
    """Runs plans on a transformer; removes the logit shift of models adapted from AR ones.

    `edge` says what predicts a position whose row was not fed (a shifted model's first row):
    `strict` marks it invalid, `duplicate` reads the position's own row as the official codes do.
    """

    def __init__(self, model: Transformer, edge_duplicate: bool = False):
        self.model = model
        self.spec = model.spec
        self.edge_duplicate = edge_duplicate

    @torch.inference_mode()
    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        """Prediction of `plan.logits_for`, None if the plan wants none.

        The LM head runs on the wanted rows only: no [canvas, vocab] tensor exists.
        """
        plan = plan.to(self.model.device)
        if store is None:
            store = KVStore(self.spec, len(plan.tokens), 0, self.model.dtype, self.model.device)
        if plan.partial is not None:
            run = PartialForward(plan, store, self.model.spec.d_model)
            hidden = self.model.hidden(plan.tokens, plan.positions, run=run.layer)
            run.finish()
        else:
            exchange, mask = store.open(plan)
            rollout = None
            if plan.taps is not None and plan.taps.rollout:
                rollout = AttentionRollout(plan, exchange, mask)
            run = None if rollout is None else rollout.layer
            hidden = self.model.hidden(plan.tokens, plan.positions, mask, exchange, run)
            if plan.taps is not None and rollout is not None:
                plan.taps.influence = rollout.influence()
        if plan.taps is not None and plan.taps.confidence_of is not None:
            plan.taps.confidence = self._confidence(plan, plan.taps.confidence_of, hidden)
        if plan.logits_for is None:
            return None
        rows, valid = self._rows(plan, plan.logits_for)
        picked = hidden.gather(1, rows[..., None].expand(-1, -1, hidden.shape[-1]))
        return Prediction(self.model.logits(picked), valid)

    def _confidence(self, plan: Plan, wanted: Tensor, hidden: Tensor) -> Tensor:
        """Highest probability of each wanted slot; a few rows at a time, since the logits of a
        whole canvas may not fit."""
        rows, valid = self._rows(plan, wanted.to(hidden.device))
        picked = hidden.gather(1, rows[..., None].expand(-1, -1, hidden.shape[-1]))
        tops = [self.model.logits(part).softmax(-1).amax(-1) for part in picked.split(32, dim=1)]
        top = torch.cat(tops, dim=1)
        return top if valid is None else top * valid

    def _rows(self, plan: Plan, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
        """Fed row that predicts each wanted slot, and whether it was fed."""
        if wanted.shape[1] == 0:
            return wanted, None
        limit = int(max(plan.slots.max(), wanted.max())) + 2
        index = torch.full((len(plan.slots), limit), -1, device=plan.slots.device)
        order = torch.arange(plan.slots.shape[1], device=plan.slots.device).expand_as(plan.slots)
        index.scatter_(1, plan.slots.where(plan.slots >= 0, limit - 1), order)
        index[:, -1] = -1
        source = wanted - self.spec.logit_shift
        if self.spec.logit_shift:
            # Position 0 has no row before it and keeps its own (never decoded: it is prompt).
            source = source.where(source >= 0, wanted)
        rows = index.gather(1, source.clamp(min=0))
        if self.edge_duplicate:
            rows = rows.where(rows >= 0, index.gather(1, wanted.clamp(min=0)))
        valid = (rows >= 0) & (wanted >= 0)
        return rows.clamp(min=0), valid

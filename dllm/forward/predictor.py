"""One forward of a plan: rows in, aligned logits of the wanted positions out."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.forward.graphs import Graphs
from dllm.forward.grouping import ACCELERATOR, CPU, groups
from dllm.forward.heap import keep_freed_memory
from dllm.forward.partial import PartialForward
from dllm.forward.rollout import AttentionRollout
from dllm.forward.store import KVStore, Replayed
from dllm.models.transformer import Reading, Transformer, take
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction
from dllm.step.transfer import sent


class Predictor:
    """Runs plans on a transformer; removes the logit shift of models adapted from AR ones."""

    def __init__(self, model: Transformer):
        self.model = model
        self.spec = model.spec
        self._device = model.device
        self._graphs = Graphs() if model.graphs else None
        self._machine = ACCELERATOR
        if self._device.type == "cpu":
            self._machine = CPU
            keep_freed_memory()
        self._nothing = KVStore(self.spec, 0, 0, model.dtype, self._device)
        """What a forward without a store meets."""

    @torch.inference_mode()
    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        """Prediction of `plan.logits_for`, None if the plan wants none.

        The LM head runs on the wanted rows only: no [canvas, vocab] tensor exists.
        """
        store = self._nothing if store is None else store
        if plan.logits_for is None:
            rows, valid = plan.slots[:, :0], None
        else:
            rows, valid = self._sources(plan, plan.logits_for)
        if plan.taps is not None and plan.taps.confidence_of is not None:
            hidden = self._states(plan, store, None)
            plan.taps.confidence = self._confidence(plan, plan.taps.confidence_of, hidden)
            hidden = take(hidden, rows.to(hidden.device))
        else:
            parts = [self._states(*part) for part in self._parts(plan, store, rows)]
            hidden = parts[0] if len(parts) == 1 else torch.cat(parts)
        return None if plan.logits_for is None else self._predicted(hidden, valid)

    def _parts(
        self, plan: Plan, store: KVStore, rows: Tensor
    ) -> list[tuple[Plan, KVStore, Tensor]]:
        """The forwards of a plan: each with its sequences' store and wanted rows."""
        # What is recomputed or tapped is told for all entries at once, and of several branches one
        # is stored after the forward.
        apart = plan.partial is None and plan.taps is None and len(plan.slots) == len(plan.fed)
        if not apart or not (plan.padded or plan.slots.numel() > self._machine.most):
            return [(plan, store, rows)]
        return [
            (plan.part(first, end, width), store.part(first, end), rows[first:end])
            for first, end, width in groups(plan.slots.numpy(), self._machine)
        ]

    def _states(self, plan: Plan, store: KVStore, wanted: Tensor | None) -> Tensor:
        """Final states of the wanted rows [entries, wanted], None = of all."""
        device = self._device
        if wanted is not None:
            if not plan.slots.shape[1]:
                shape = (*wanted.shape, self.spec.d_model)
                return torch.zeros(shape, dtype=self.model.dtype, device=device)
            wanted = sent(wanted, device)
        fed = plan.to(device)
        if plan.partial is not None:
            run = PartialForward(plan, store, self.spec.d_model)
            hidden = self.model.hidden(fed.tokens, fed.positions, run=run.layer, rows=wanted)
            run.finish()
            return hidden
        opened = store.open(plan)
        mask = None if opened.mask is None else sent(opened.mask, device)
        if self._graphs is not None and plan.taps is None and plan.block is None:
            how = opened.replayed
            if how is not None and not plan.padded:
                hidden = self._replayed(fed, mask, how)
                return hidden.clone() if wanted is None else take(hidden, wanted)
        rollout = None
        if plan.taps is not None and plan.taps.rollout:
            rollout = AttentionRollout(plan, opened.exchange, mask)
        run = None if rollout is None else rollout.layer
        reading = self._reading(fed, opened.slots)
        real = None
        if plan.padded:
            real = sent((plan.slots >= 0).nonzero(), device).unbind(dim=1)
        hidden = self.model.hidden(
            fed.tokens, fed.positions, mask, opened.exchange, run, reading, wanted, real
        )
        if plan.taps is not None and rollout is not None:
            plan.taps.influence = rollout.influence()
        return hidden

    def _replayed(self, fed: Plan, mask: Tensor | None, how: Replayed) -> Tensor:
        """Final states of all rows: how many are wanted changes from step to step."""
        given = [fed.tokens, fed.positions] + ([] if mask is None else [mask])
        indices = [sent(index, self._device) for index in how.indices]

        def compute(inputs: Sequence[Tensor]) -> Tensor:
            tokens, positions, *rest = inputs
            seen = None if mask is None else rest.pop(0)
            return self.model.hidden(tokens, positions, seen, how.bound(rest))

        assert self._graphs is not None
        return self._graphs.run((how.fixed, mask is None), [*given, *indices], compute)

    def _predicted(
        self,
        states: Float[Tensor, "entries wanted d_model"],
        valid: Bool[np.ndarray, "entries wanted"] | None,
    ) -> Prediction:
        if valid is None:
            return Prediction(self.model.logits(states), None)
        # A row that was not computed has no logits, above all not those of another row.
        entry, row = (sent(torch.from_numpy(index), states.device) for index in valid.nonzero())
        known = self.model.logits(states[entry, row])
        logits = known.new_full((*valid.shape, known.shape[-1]), torch.nan)
        logits[entry, row] = known
        return Prediction(logits, sent(torch.from_numpy(valid), states.device))

    def _reading(self, plan: Plan, slots: Tensor) -> Reading | None:
        """What a model that tells the block from the rest must know; `slots`: of the keys."""
        if plan.block is None:
            return None
        rows = plan.slots if plan.logits_for is None else plan.logits_for
        found, fed = self._rows(plan.slots.cpu().numpy(), rows.cpu().numpy())
        rows = torch.from_numpy(np.where(fed, found, -1))
        slots, rows = sent(slots, plan.block.device), sent(rows, plan.block.device)
        return Reading(plan.block, slots.expand(len(plan.slots), -1), plan.conditioning, rows)

    def _confidence(self, plan: Plan, wanted: Tensor, hidden: Tensor) -> Tensor:
        """Highest probability of each wanted slot; a few rows at a time, since the logits of a
        whole canvas may not fit."""
        rows, valid = self._sources(plan, wanted)
        picked = take(hidden, rows.to(hidden.device))
        tops = [self.model.logits(part).softmax(-1).amax(-1) for part in picked.split(32, dim=1)]
        top = torch.cat(tops, dim=1)
        return top if valid is None else top * torch.from_numpy(valid).to(top.device)

    def _sources(
        self, plan: Plan, wanted: Int[Tensor, "entries wanted"]
    ) -> tuple[Int[Tensor, "entries wanted"], Bool[np.ndarray, "entries wanted"] | None]:
        """Fed row that predicts each wanted slot, any where none does; and where one does, None =
        everywhere."""
        rows, fed = self._rows(plan.slots.numpy(), wanted.numpy())
        if fed.all():
            return torch.from_numpy(rows), None
        return torch.from_numpy(np.where(fed, rows, 0)), fed

    def _rows(
        self, slots: Int[np.ndarray, "entries rows"], wanted: Int[np.ndarray, "entries wanted"]
    ) -> tuple[Int[np.ndarray, "entries wanted"], Bool[np.ndarray, "entries wanted"]]:
        """Fed row that predicts each wanted slot, and where there is one."""
        source = wanted
        if self.spec.logit_shift:
            # Position 0 has no row before it and keeps its own (never decoded: it is prompt).
            source = np.where(wanted > 0, wanted - self.spec.logit_shift, wanted)
        count, first = slots.shape[1], slots[:, :1]
        if count and (slots - first == np.arange(count)).all():
            # One span without padding: rows are counted from its first slot.
            rows = source - first
            return rows, (rows >= 0) & (rows < count)
        entries = np.arange(len(slots))[:, None]
        last = max(slots.max(initial=0), wanted.max(initial=0)) + 1
        # Padding is slot -1, the last column: no row.
        index = np.full((len(slots), last + 1), -1)
        index[entries, slots] = np.arange(count)
        index[:, -1] = -1
        rows = index[entries, source]
        return rows, rows >= 0

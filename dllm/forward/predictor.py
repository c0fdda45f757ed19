"""One forward of a plan: rows in, aligned logits of the wanted positions out."""

import warnings
from collections.abc import Callable, Sequence

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
from dllm.step.transfer import sent, sent_together


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
            rows, valid = np.zeros((len(plan.slots), 0), dtype=np.int64), None
        else:
            rows, valid = self._sources(plan, plan.logits_for)
        if plan.taps is not None and plan.taps.confidence_of is not None:
            hidden = self._states(plan, store, None)
            plan.taps.confidence = self._confidence(plan, plan.taps.confidence_of, hidden)
            hidden = take(hidden, sent(torch.from_numpy(rows), hidden.device))
        else:
            hidden = self._wanted(plan, store, rows)
        return None if plan.logits_for is None else self._predicted(hidden, valid)

    def _wanted(
        self, plan: Plan, store: KVStore, rows: Int[np.ndarray, "entries wanted"]
    ) -> Float[Tensor, "entries wanted d_model"]:
        """Final states of the wanted rows, from as many forwards as the machine is told."""
        slots = plan.slots.numpy()
        # What is recomputed or tapped is told for all entries at once, and of several branches one
        # is stored after the forward.
        apart = plan.partial is None and plan.taps is None and len(slots) == len(plan.fed)
        worth = apart and (plan.padded or slots.size > self._machine.most)
        parts = groups(slots, self._machine) if worth else []
        if len(parts) < 2:
            return self._states(plan, store, rows)
        found = torch.cat(
            [
                self._states(plan.part(entries, width), store.part(entries), rows[entries])
                for entries, width in parts
            ]
        )
        back = np.concatenate([entries for entries, _ in parts]).argsort()
        return found[sent(torch.from_numpy(back), found.device)]

    def _states(
        self, plan: Plan, store: KVStore, wanted: Int[np.ndarray, "entries wanted"] | None
    ) -> Float[Tensor, "entries wanted d_model"]:
        """Final states of the wanted rows, None = of all."""
        device, slots = self._device, plan.slots.numpy()
        if wanted is not None and not slots.shape[1]:
            shape = (*wanted.shape, self.spec.d_model)
            return torch.zeros(shape, dtype=self.model.dtype, device=device)
        told = [plan.tokens.numpy(), plan.positions.numpy()]
        if wanted is not None:
            told.append(wanted)
        if plan.padded:
            told.append(np.stack(plan.real[:2]))
        tokens, positions, *rest = sent_together(told, device)
        rows = None if wanted is None else rest.pop(0)
        if self._graphs is not None and (plan.partial is not None or plan.taps is not None):
            warnings.warn(
                "model.compile=graphs records no forward that chooses its rows inside or is looked "
                "into, as this cache's are",
                stacklevel=2,
            )
        if plan.partial is not None:
            run = PartialForward(plan, store, self.spec.d_model)
            hidden = self.model.hidden(tokens, positions, run=run.layer, rows=rows)
            run.finish()
            return hidden
        opened = store.open(plan)
        mask = None if opened.mask is None else sent(opened.mask, device)
        plain = plan.taps is None and plan.block is None and not plan.padded
        if self._graphs is not None and opened.replayed is not None and plain:
            hidden = self._replayed(tokens, positions, mask, opened.replayed())
            return hidden.clone() if rows is None else take(hidden, rows)
        rollout = None
        if plan.taps is not None and plan.taps.rollout:
            rollout = AttentionRollout(plan, opened.exchange, mask, self.model.dtype)
        run = None if rollout is None else rollout.layer
        reading = self._reading(plan, opened.slots)
        real = rest[0].unbind() if plan.padded else None
        hidden = self.model.hidden(
            tokens, positions, mask, opened.exchange, run, reading, rows, real
        )
        if plan.taps is not None and rollout is not None:
            plan.taps.influence = rollout.influence()
        return hidden

    def _replayed(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, how: Replayed
    ) -> Tensor:
        """Final states of all rows: how many are wanted changes from step to step."""
        given = [tokens, positions] + ([] if mask is None else [mask])
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
        known, lacking = sent_together(
            [np.stack(rows.nonzero()) for rows in (valid, ~valid)], states.device
        )
        predicted = self.model.logits(states[known.unbind()])
        logits = predicted.new_empty(*valid.shape, predicted.shape[-1])
        logits[known.unbind()] = predicted
        logits[lacking.unbind()] = torch.nan
        return Prediction(logits, sent(torch.from_numpy(valid), states.device))

    def _reading(self, plan: Plan, keys: Callable[[], Int[np.ndarray, "b k"]]) -> Reading | None:
        """What a model that tells the block from the rest must know; `keys`: their slots."""
        if plan.block is None:
            return None
        slots = plan.slots.numpy()
        wanted = slots if plan.logits_for is None else plan.logits_for.numpy()
        found, fed = self._rows(slots, wanted)
        at, rows = sent_together([keys(), np.where(fed, found, -1)], self._device)
        given = plan.conditioning
        given = None if given is None else given.to(self._device)
        return Reading(sent(plan.block, self._device), at.expand(len(slots), -1), given, rows)

    def _confidence(self, plan: Plan, wanted: Tensor, hidden: Tensor) -> Tensor:
        """Highest probability of each wanted slot; a few rows at a time, since the logits of a
        whole canvas may not fit."""
        rows, valid = self._sources(plan, wanted)
        picked = take(hidden, sent(torch.from_numpy(rows), hidden.device))
        tops = [self.model.logits(part).softmax(-1).amax(-1) for part in picked.split(32, dim=1)]
        top = torch.cat(tops, dim=1)
        return top if valid is None else top * torch.from_numpy(valid).to(top.device)

    def _sources(
        self, plan: Plan, wanted: Int[Tensor, "entries wanted"]
    ) -> tuple[Int[np.ndarray, "entries wanted"], Bool[np.ndarray, "entries wanted"] | None]:
        """Fed row that predicts each wanted slot, any where none does; and where one does, None =
        everywhere."""
        rows, fed = self._rows(plan.slots.numpy(), wanted.numpy())
        return (rows, None) if fed.all() else (np.where(fed, rows, 0), fed)

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

"""The forwards of a run: made, timed and counted; with fewer drafts where memory is short."""

import time
import warnings
from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from dllm.cache.audit import staleness
from dllm.engine.row import Row
from dllm.engine.setting import Served
from dllm.errors import RunError
from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import MODEL, Plan, Request
from dllm.step.prediction import Prediction


class OutOfMemory(RunError):
    """Of one forward."""


class _Model:
    """One model's side of a batch: its cache's notes and its store, whose rows are the batch's."""

    def __init__(self, served: Served, capacity: int, batch_size: int):
        self.predictor = served.predictor
        self.cache = copy(served.cache)
        """Its notes are this batch's own."""
        self.cache.begin(self.predictor.spec)
        self.store: KVStore | None = None
        if self.cache.stores:
            spec, model = self.predictor.spec, self.predictor.model
            self.store = KVStore(
                spec, batch_size, capacity, model.dtype, model.device, model.layer_devices
            )
            self.store.empty()


class Forwards:
    """What the loop has computed: forwards that the caches plan, on the stores that they keep."""

    def __init__(self, models: Mapping[str, Served], capacity: int, batch_size: int):
        self.batch_size = batch_size
        self.models = {name: _Model(one, capacity, batch_size) for name, one in models.items()}
        self._most_branches: int | None = None
        """Droppable branches per sequence that fit into memory; None = all so far."""

    @property
    def _stores(self) -> list[KVStore]:
        return [model.store for model in self.models.values() if model.store is not None]

    def append(self) -> None:
        """One more sequence, as the last row."""
        for store in self._stores:
            store.append()

    def hand_on(self, row: int) -> None:
        """Empties a row for the next sequence."""
        for store in self._stores:
            store.hand_on(row)

    def keep(self, rows: list[int]) -> None:
        """Makes the sequences in `rows` the only ones."""
        for store in self._stores:
            store.keep(rows)

    def step(
        self, canvas: Canvas, rows: list[Row], request: Request
    ) -> tuple[Request, Plan, Prediction]:
        """The request as it could be met, the plan that met it, and its prediction.

        Where memory is short, half of the branches that may be are left out, from then on. Raises
        `OutOfMemory` if there is nothing to leave out.
        """
        model = self.models[request.model]
        spec = model.predictor.spec
        read = canvas.in_terms_of(spec)
        if request.droppable and request.branches is not None:
            request = replace(request, branches=request.branches[:, : self._most_branches])
        translated = _translated(canvas, spec, request)
        *before, plan = model.cache.plan(read, translated, model.store)
        self._idle(read, rows, request.model, before)
        while True:
            try:
                prediction = self._forward(read, rows, request.model, plan)
            except OutOfMemory:
                branches = request.branches if request.droppable else None
                if branches is None or branches.shape[1] == 1:
                    raise
                self._most_branches = kept = (branches.shape[1] + 1) // 2
                warnings.warn(
                    f"memory is short: {kept} canvases per sequence instead of {branches.shape[1]}",
                    stacklevel=2,
                )
                # Of the same plan: the cache has noted that it made one.
                request = replace(request, branches=branches[:, :kept])
                plan = plan.first(kept)
            else:
                assert prediction is not None, "a step's last plan predicts"
                return request, plan, self._in_own_vocabulary(prediction)

    def _in_own_vocabulary(self, prediction: Prediction) -> Prediction:
        """Another model's prediction over the tokens of the canvas's: one that it lacks has
        probability 0, and its rows beyond them are no tokens."""
        own, logits = self.models[MODEL].predictor.spec.vocab_size, prediction.logits
        lacking = own - logits.shape[-1]
        if lacking == 0:
            return prediction
        if lacking < 0:
            return replace(prediction, logits=logits[..., :own])
        return replace(prediction, logits=F.pad(logits, (0, lacking), value=-torch.inf))

    def adopt(self, model: str, branches: list[int]) -> None:
        """Keeps what the last forward of a model computed for one branch of each sequence."""
        store = self.models[model].store
        if store is not None:
            store.adopt(branches)

    def close_blocks(self, canvas: Canvas, rows: list[Row], done: list[int]) -> None:
        """Forwards that the caches owe to the blocks that are complete in the rows `done`."""
        for name, model in self.models.items() if done else ():
            read = canvas.in_terms_of(model.predictor.spec)
            self._idle(read, rows, name, model.cache.block_end(read, done, model.store))

    def _idle(self, canvas: Canvas, rows: list[Row], name: str, plans: list[Plan]) -> None:
        for plan in plans:
            self._forward(canvas, rows, name, plan)
            for b, row in enumerate(rows):
                row.idle(canvas, b, plan, name)

    def _forward(self, canvas: Canvas, rows: list[Row], name: str, plan: Plan) -> Prediction | None:
        model = self.models[name]
        found = None if model.store is None else staleness(plan, canvas, model.store)
        started = time.perf_counter()
        try:
            prediction = model.predictor.predict(plan, model.store)
        except RuntimeError as error:
            if not _short_of_memory(error):
                raise
            raise OutOfMemory(
                f"batch_size={self.batch_size}: out of memory in a forward of "
                f"{plan.slots.shape[0]} x {plan.slots.shape[1]} rows"
            ) from None
        share = (time.perf_counter() - started) / len(rows)
        extra = [0] * len(rows)
        if plan.slots.shape[0] > len(rows):
            present = (plan.slots >= 0).any(dim=1).view(-1, len(rows))
            extra = (present.sum(dim=0) - 1).tolist()
        for b, row in enumerate(rows):
            row.cost.model_seconds += share
            if found is not None:
                row.cost.attended += int(found.attended[b])
                row.cost.stale += int(found.stale[b])
            if fed := int(plan.fed[b]):
                row.cost.count(name, plan.kind_of(b))
                row.cost.aux_forwards += extra[b]
                row.cost.rows += fed
                row.cost.enfe += fed / int(canvas.length[b])
        return prediction


def _short_of_memory(error: RuntimeError) -> bool:
    """Of an accelerator, which has a type of its own, or of the CPU, whose allocator has none."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _translated(canvas: Canvas, spec: ModelSpec, request: Request) -> Request:
    """The request with its branches in the terms of the model that reads them."""
    branches = request.branches
    if branches is None:
        return request
    masks = branches == canvas.mask_id
    if canvas.mask_id < 0:
        # -1 also says that a sequence has fewer: those begin with it.
        masks &= branches[..., :1] >= 0
    read = np.where(branches < spec.vocab_size, branches, spec.pad_id)
    return replace(request, branches=np.where(masks, spec.mask_id, read))

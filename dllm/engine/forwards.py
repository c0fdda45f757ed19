"""The forwards of a run: made, timed and counted; with fewer drafts where memory is short."""

import time
import warnings
from copy import copy
from dataclasses import replace

import torch

from dllm.cache.audit import staleness
from dllm.cache.policy import CachePolicy
from dllm.engine.row import Row
from dllm.errors import RunError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.step.canvas import Canvas
from dllm.step.plan import Plan, Request
from dllm.step.prediction import Prediction


class Forwards:
    """What the loop has computed: forwards that the cache plans, on the store that it keeps."""

    def __init__(self, predictor: Predictor, cache: CachePolicy, capacity: int, batch_size: int):
        self.predictor, self.batch_size = predictor, batch_size
        self.cache = copy(cache)
        """Its notes are this batch's own."""
        self.cache.begin(predictor.spec)
        self.store: KVStore | None = None
        if cache.stores:
            model, places = predictor.model, predictor.model.layer_devices
            self.store = KVStore(
                predictor.spec, batch_size, capacity, model.dtype, model.device, places
            )
            self.store.empty()
        self._most_drafts: int | None = None
        """Drafts per sequence that fit into memory; None = all so far."""

    def append(self) -> None:
        """One more sequence, as the last row."""
        if self.store is not None:
            self.store.append()

    def hand_on(self, row: int) -> None:
        """Empties a row for the next sequence."""
        if self.store is not None:
            self.store.hand_on(row)

    def keep(self, rows: list[int]) -> None:
        """Makes the sequences in `rows` the only ones."""
        if self.store is not None:
            self.store.keep(rows)

    def step(
        self, canvas: Canvas, rows: list[Row], request: Request
    ) -> tuple[Request, Plan, Prediction]:
        """The request as it could be met, the plan that met it, and its prediction.

        Where memory is short, half of the drafts are left out, from then on. Raises `RunError` if
        there is nothing to leave out.
        """
        while True:
            if request.droppable and request.hypotheses is not None:
                kept = request.hypotheses[:, : self._most_drafts]
                request = replace(request, hypotheses=kept if kept.shape[1] else None)
            *before, plan = self.cache.plan(canvas, request, self.store)
            try:
                self._idle(canvas, rows, before)
                prediction = self._forward(canvas, rows, plan)
            except torch.OutOfMemoryError:
                drafts = 0 if request.hypotheses is None else request.hypotheses.shape[1]
                if not (request.droppable and drafts):
                    raise RunError(
                        f"batch_size={self.batch_size}: out of memory in a forward of "
                        f"{plan.slots.shape[0]} x {plan.slots.shape[1]} rows"
                    ) from None
                self._most_drafts = drafts // 2
                warnings.warn(
                    f"memory is short: {self._most_drafts} drafts per sequence instead of {drafts}",
                    stacklevel=2,
                )
            else:
                assert prediction is not None, "a step's last plan predicts"
                return request, plan, prediction

    def close_blocks(self, canvas: Canvas, rows: list[Row], done: list[int]) -> None:
        """Forwards that the cache owes to the blocks that are complete in the rows `done`."""
        if done:
            self._idle(canvas, rows, self.cache.block_end(canvas, done, self.store))

    def _idle(self, canvas: Canvas, rows: list[Row], plans: list[Plan]) -> None:
        for plan in plans:
            self._forward(canvas, rows, plan)
            for b, row in enumerate(rows):
                row.idle(canvas, b, plan)

    def _forward(self, canvas: Canvas, rows: list[Row], plan: Plan) -> Prediction | None:
        if self.store is not None:
            found = staleness(plan, canvas, self.store)
            for b, row in enumerate(rows):
                row.cost.attended += int(found.attended[b])
                row.cost.stale += int(found.stale[b])
        started = time.perf_counter()
        prediction = self.predictor.predict(plan, self.store)
        share = (time.perf_counter() - started) / len(rows)
        extra = [0] * len(rows)
        if plan.slots.shape[0] > len(rows):
            present = (plan.slots >= 0).any(dim=1).view(-1, len(rows))
            extra = (present.sum(dim=0) - 1).tolist()
        for b, row in enumerate(rows):
            row.cost.model_seconds += share
            if fed := int(plan.fed[b]):
                row.cost.forwards[plan.kind_of(b)] += 1
                row.cost.aux_forwards += extra[b]
                row.cost.rows += fed
        return prediction

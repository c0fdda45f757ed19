"""No cache: every step computes the whole canvas (exact for every model)."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch

from dllm.cache.rows import feed
from dllm.forward.store import KVStore
from dllm.models.spec import NO_MASK, AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Need, Plan, Request


class NoCache:
    audit = False
    stores: ClassVar[bool] = False
    attention: ClassVar[frozenset[AttentionKind]] = frozenset(
        {"full", "block_causal", "causal", "causal_prefix"}
    )

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        return frozenset({"opening_logits", "block_logits", "all_logits", "hypotheses", "guidance"})

    def begin(self, spec: ModelSpec) -> None:
        self._spec = spec

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        if self._spec.attention == "causal_prefix":
            return [self._up_to_the_block(canvas, request)]
        width = canvas.width
        tokens, wanted, fed = canvas.tokens[:, :width], request.positions, canvas.length
        slots = np.arange(width)[None].repeat(canvas.batch, axis=0)
        padded = bool(canvas.length.min() < width)
        if padded:
            slots = np.where(slots < canvas.length[:, None], slots, -1)
        if request.branches is not None:
            count = request.branches.shape[1]
            tokens = request.branches[:, :, :width].transpose(1, 0, 2).reshape(-1, width)
            present = request.branches[:, :, 0] >= 0  # [batch, branches]
            slots = np.where(present.T.reshape(-1, 1), np.tile(slots, (count, 1)), -1)
            wanted = np.tile(wanted, (count, 1))
            fed = fed * present.sum(axis=1)
            padded = padded or not present.all()
        if canvas.mask_id == NO_MASK and (tokens == NO_MASK).any():
            # A verifier can't read masks: it is fed what is decided.
            slots, padded = np.where(tokens == NO_MASK, -1, slots), True
            fed = (slots >= 0).sum(axis=1).reshape(-1, canvas.batch).sum(axis=0)
        tokens = np.maximum(tokens, 0)
        if self._spec.attention == "causal":
            # A mask sees what is decided anywhere: decided positions go first.
            order = np.argsort((tokens == canvas.mask_id) | (slots < 0), axis=1, kind="stable")
            tokens, slots = (np.take_along_axis(a, order, axis=1) for a in (tokens, slots))
        positions, within = slots.clip(0) if padded else slots, None
        if request.twins:
            twin = np.where(wanted >= 0, width + np.arange(wanted.shape[1]), -1)
            decided = np.take_along_axis(canvas.tokens, wanted, axis=1) != canvas.mask_id
            tokens = np.concatenate((tokens, np.full_like(twin, canvas.mask_id)), axis=1)
            positions = np.concatenate((positions, wanted.clip(0)), axis=1)
            slots = np.concatenate((slots, twin), axis=1)
            # Nothing sees a twin but the other twins; a twin sees all but its own position.
            within = np.ones((len(slots), slots.shape[1], slots.shape[1]), dtype=bool)
            within[:, :width, width:] = False
            within[:, width:, :width] = wanted[:, :, None] != np.arange(width)
            fed = fed + (twin >= 0).sum(axis=1)
            padded = bool((slots < 0).any())
            wanted = np.where(decided, twin, wanted)
        slots = torch.from_numpy(slots)
        return [
            Plan(
                kind=ForwardKind.STEP,
                tokens=torch.from_numpy(tokens),
                positions=torch.from_numpy(positions),
                slots=slots,
                fed=fed.copy(),
                padded=padded,
                within=self._within(canvas, slots) if within is None else torch.from_numpy(within),
                logits_for=torch.from_numpy(wanted),
            )
        ]

    def _up_to_the_block(self, canvas: Canvas, request: Request) -> Plan:
        """What is decided, causally, and the block, which sees all of it and itself; nothing behind
        the block."""
        start, end = canvas.block_start[:, None], canvas.block_end[:, None]
        fed = [np.arange(last) for last in canvas.block_end]
        nothing = np.zeros((canvas.batch, 1), dtype=bool)
        plan = feed(
            [ForwardKind.STEP] * canvas.batch,
            canvas.tokens,
            fed,
            nothing,
            [np.zeros(rows.size, dtype=bool) for rows in fed],
            "full",
            request.positions,
        )
        slots = plan.slots.numpy()
        # Padding sees something, too: a row without keys would be NaN.
        seen = np.where((slots >= start) | (slots < 0), end, slots + 1)
        return replace(
            plan,
            within=torch.from_numpy(slots[:, None] < seen[:, :, None]),
            block=torch.from_numpy(slots >= start),
            conditioning=request.conditioning,
        )

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []

    def _within(self, canvas: Canvas, slots: torch.Tensor):
        if self._spec.attention == "block_causal":
            size = torch.from_numpy(canvas.attention_block)[:, None]
            block = slots // size.repeat(len(slots) // len(size), 1)
            return block[:, :, None] >= block[:, None, :]
        return "causal" if self._spec.attention == "causal" else "full"

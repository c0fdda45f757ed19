"""Exact cache of models whose block reads a causal prefix (DiffusionGemma).

What is decided is read causally and by weights of its own kind (the "encoder"), so that its keys
and values are final: the prompt before the first step, each finished block before the next one's
first step, none after the last. A step feeds the block alone and keeps nothing of it.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from dllm.cache.spans import span_plan
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Need, Plan, Request


@dataclass(kw_only=True)
class EncoderCache:
    audit = False
    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"causal_prefix"})

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        return frozenset({"opening_logits", "block_logits"})

    def begin(self, spec: ModelSpec) -> None:
        """Nothing depends on the model."""

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        start, end = canvas.block_start, canvas.block_end
        good = store.valid & (store.token == canvas.tensor())
        stored = np.minimum(good.cumprod(dim=1).sum(dim=1).cpu().numpy(), start)
        plans = []
        if (stored < start).any():
            kinds = [
                ForwardKind.PREFILL if first < own else ForwardKind.COMMIT
                for first, own in zip(stored, canvas.prompt_length, strict=True)
            ]
            everything = np.ones((canvas.batch, store.slots), dtype=bool)
            # Blocks of one position: causal.
            plan = span_plan(
                canvas,
                None,
                kinds,
                stored,
                start,
                store.slots,
                stored,
                everything,
                np.ones(canvas.batch, dtype=np.int64),
            )
            plans.append(replace(plan, block=torch.zeros_like(plan.slots, dtype=torch.bool)))
        steps = [ForwardKind.STEP] * canvas.batch
        nothing = np.zeros((canvas.batch, store.slots), dtype=bool)
        plan = span_plan(canvas, request, steps, start, end, store.slots, start, nothing)
        plan = replace(plan, block=plan.slots >= 0, conditioning=request.conditioning)
        return [*plans, plan]

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []

"""Exact block cache of block-causal models (SDAR, TraDo, TDAR, LLaDA2, Fast-dLLM v2).

Under block-causal attention the keys and values of a block depend on it and on earlier blocks only,
so that they are final once they were computed from the block's final tokens: denoising steps feed
the current block and store nothing, a forward with the final tokens stores. What counts as stored
is read off the store (slot valid and computed from the canvas's token), hence a remasked or edited
token is simply computed again, and a region's blocks need not be the model's.

Official settings: SDAR's generate.py own / after_block (also after the last block), TDAR's engine
shared / before_next. `merged` saves the forward: the finished block is fed together with the next
block's first step.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int

from dllm.cache.spans import span_plan
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Need, Plan, Request


IntRow = Int[np.ndarray, "batch"]


@dataclass(kw_only=True)
class BlockCache:
    prefill: Literal["own", "shared", "merged"]
    """How the prompt's full blocks are stored: by a forward of their own, together with the first
    step if that block holds prompt tokens too (`shared`), or always together with it (`merged`)."""
    commit: Literal["after_block", "before_next", "merged"]
    """How a finished block is stored: by a forward right after it, by one before the next block's
    first step (none after the last block), or together with that step."""

    _lead: int = field(init=False, default=0)
    """Stored rows fed again because they predict the first wanted position (shifted models)."""

    audit = False
    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"block_causal"})

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        return frozenset({"opening_logits", "block_logits", "all_logits", "hypotheses"})

    def begin(self, spec: ModelSpec) -> None:
        self._lead = spec.logit_shift

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        block = canvas.attention_block
        wanted = request.positions
        first = np.where(wanted < 0, canvas.capacity, wanted).min(axis=1, initial=canvas.capacity)
        first = np.where(first == canvas.capacity, canvas.block_start, first)
        last = np.maximum(wanted.max(axis=1, initial=-1), first)
        start = first // block * block
        end = np.minimum((last // block + 1) * block, canvas.length)
        ready = np.minimum(_stored(canvas, store), start)
        behind = self._alone(canvas, ready, start)
        plans = []
        if (behind > ready).any():
            plans.append(_storing(canvas, ready, behind, store))
        fed_from = np.where(behind > ready, start, ready)
        # A row before the block is fed with its own keys and values: it replaces them by the same.
        fed_from = np.minimum(fed_from, np.maximum(start - self._lead, 0))
        index = np.arange(canvas.capacity)
        write = (index >= ready[:, None]) & (index < start[:, None])
        kinds = [ForwardKind.STEP] * canvas.batch
        plans.append(
            span_plan(canvas, request, kinds, fed_from, end, store.slots, fed_from, write, block)
        )
        return plans

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        assert store is not None
        if self.commit != "after_block":
            return []
        ready = _stored(canvas, store)
        masked = canvas.masked()
        complete = np.where(masked.any(axis=1), masked.argmax(axis=1), canvas.length)
        end = np.where(complete < canvas.length, _floor(complete, canvas), complete)
        # One forward per block, also where the blocks ahead are complete already.
        last = -(-canvas.block_end // canvas.attention_block) * canvas.attention_block
        end = np.minimum(end, np.minimum(last, canvas.length))
        own = np.isin(np.arange(canvas.batch), rows)
        end = np.where(own, np.maximum(end, ready), ready)
        return [_storing(canvas, ready, end, store)] if (end > ready).any() else []

    def _alone(self, canvas: Canvas, ready: IntRow, start: IntRow) -> IntRow:
        """End of what is stored by a forward of its own before the step; `ready` where nothing
        is."""
        prompt = ready < _floor(canvas.prompt_length, canvas)
        if self.prefill == "shared":
            apart = start >= canvas.prompt_length
        else:
            apart = np.full(canvas.batch, self.prefill == "own")
        apart = np.where(prompt, apart, self.commit != "merged")
        return np.where(apart, start, ready)


def _stored(canvas: Canvas, store: KVStore) -> IntRow:
    """Whole blocks from position 0 whose keys and values are stored, in positions."""
    good = store.valid & (store.token == canvas.tensor())
    return _floor(good.cumprod(dim=1).sum(dim=1).cpu().numpy(), canvas)


def _floor(positions: IntRow, canvas: Canvas) -> IntRow:
    return positions // canvas.attention_block * canvas.attention_block


def _storing(canvas: Canvas, start: IntRow, end: IntRow, store: KVStore) -> Plan:
    """A forward that predicts nothing and keeps everything it feeds."""
    kinds = [
        ForwardKind.PREFILL if first < own else ForwardKind.COMMIT
        for first, own in zip(start, _floor(canvas.prompt_length, canvas), strict=True)
    ]
    write = np.ones((canvas.batch, canvas.capacity), dtype=bool)
    return span_plan(
        canvas, None, kinds, start, end, store.slots, start, write, canvas.attention_block
    )

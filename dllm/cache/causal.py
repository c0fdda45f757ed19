"""Streaming cache of causal diffusion models (WeDLM, arXiv 2512.22737): exact, never refreshed.

Physical order: the committed prefix, then the decided positions behind it, then the masks, each by
position. The prompt is computed once (its logits are not used); a step feeds what is decided behind
the prefix and the masks up to the last position wanted, and keeps the keys and values of the
leading decided run, which saw nothing but its left neighbours. Decided positions behind a hole are
fed again until the hole is closed.

Autoregressive models (row p - 1 predicts p) are the case without holes: one row per token.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from dllm.cache.rows import CHANGED, canvases, feed
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Need, Plan, Request


@dataclass(kw_only=True)
class CausalCache:
    audit = False
    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"causal"})

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        return frozenset({"opening_logits", "block_logits", "all_logits", "hypotheses"})

    def begin(self, spec: ModelSpec) -> None:
        self._shift = spec.logit_shift

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        stored = self._prefix(canvas, store)
        plans = []
        if (stored == 0).any():
            plans.append(self._prefill(canvas, stored, store.slots))
        stored = np.where(stored == 0, canvas.prompt_length, stored)
        plans.append(self._step(canvas, request, stored, store.slots))
        return plans

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []

    def _prefix(self, canvas: Canvas, store: KVStore) -> Int[np.ndarray, "batch"]:
        """Length of what is stored and still holds; a remasked or edited token takes everything
        behind it out of the store."""
        good = store.valid & (store.token == canvas.tensor())
        run = good.cumprod(dim=1)
        store.invalidate(run == 0)
        return np.minimum(run.sum(dim=1).cpu().numpy(), canvas.length)

    def _prefill(self, canvas: Canvas, stored: Int[np.ndarray, "batch"], slots: int) -> Plan:
        fed = [
            np.arange(0 if prefix else prompt)
            for prefix, prompt in zip(stored, canvas.prompt_length, strict=True)
        ]
        kinds = [ForwardKind.PREFILL] * canvas.batch
        visible = np.zeros((canvas.batch, slots), dtype=bool)
        keep = [np.ones(positions.size, dtype=bool) for positions in fed]
        return feed(kinds, canvas.tokens, fed, visible, keep, "causal", None)

    def _step(
        self, canvas: Canvas, request: Request, stored: Int[np.ndarray, "batch"], slots: int
    ) -> Plan:
        tokens = canvases(canvas, request)
        copies = len(tokens) // canvas.batch
        fed, keep = [], []
        for entry, own in enumerate(tokens):
            row = entry % canvas.batch
            start, length = stored[row], canvas.length[row]
            if request.branches is not None:
                if own[0] < 0:
                    fed.append(np.zeros(0, dtype=np.int64))
                    keep.append(np.zeros(0, dtype=bool))
                    continue
                if (own[:start] != canvas.tokens[row, :start]).any():
                    raise CHANGED
            wanted = request.positions[row][request.positions[row] >= 0]
            # A stored row is fed again where it predicts the first wanted position.
            first = max(min(start, wanted.min(initial=length) - self._shift), 0)
            behind = np.arange(first, length)
            masked = (own[first:length] == canvas.mask_id) & (behind >= canvas.prompt_length[row])
            masks, decided = behind[masked], behind[~masked]
            run = masks[0] if masks.size else length
            # Masks behind the last one wanted would be seen by nothing.
            masks = masks[masks <= wanted.max(initial=-1) - self._shift]
            fed.append(np.concatenate((decided, masks)))
            keep.append(fed[-1] < run)
        kinds = [ForwardKind.STEP] * canvas.batch
        visible = np.tile(np.arange(slots) < stored[:, None], (copies, 1))
        wanted = np.tile(request.positions, (copies, 1))
        return feed(kinds, tokens, fed, visible, keep, "causal", wanted)

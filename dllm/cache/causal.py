"""Streaming cache of causal diffusion models (WeDLM, arXiv 2512.22737): exact, never refreshed.

Physical order: the committed prefix, then the decided positions behind it, then the masks, each by
position. The prompt is computed once (its logits are not used); a step feeds what is decided behind
the prefix and the masks up to the last position wanted, and keeps the keys and values of the
leading decided run, which saw nothing but its left neighbours. Decided positions behind a hole are
fed again until the hole is closed.

Autoregressive models (row p - 1 predicts p) are the case without holes: one row per token.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from dllm.cache.memory import PerSequence
from dllm.cache.rows import CHANGED, canvases, feed
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Plan, Request


@dataclass
class _Prefix:
    """Tokens whose keys and values are stored."""

    tokens: Int[np.ndarray, "prefix"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(kw_only=True)
class CausalCache:
    audit = False
    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"causal"})

    def begin(self, spec: ModelSpec) -> None:
        self._shift = spec.logit_shift
        self._prefixes = PerSequence(lambda canvas, row: _Prefix())

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        assert store is not None
        prefixes = self._prefixes.rows(canvas)
        self._forget_changed(canvas, prefixes)
        plans = []
        if any(prefix.tokens.size == 0 for prefix in prefixes):
            plans.append(self._prefill(canvas, prefixes, store.slots))
        plans.append(self._step(canvas, request, prefixes, store.slots))
        return plans

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []

    def _forget_changed(self, canvas: Canvas, prefixes: list[_Prefix]) -> None:
        """A remasked or edited token takes everything behind it out of the prefix."""
        for row, prefix in enumerate(prefixes):
            changed = (canvas.tokens[row, : prefix.tokens.size] != prefix.tokens).nonzero()[0]
            if changed.size:
                prefix.tokens = prefix.tokens[: changed[0]]

    def _prefill(self, canvas: Canvas, prefixes: list[_Prefix], slots: int) -> Plan:
        fed = []
        for row, prefix in enumerate(prefixes):
            prompt = np.arange(0 if prefix.tokens.size else canvas.prompt_length[row])
            fed.append(prompt)
            if prompt.size:
                prefix.tokens = canvas.tokens[row, prompt]
        kinds = [ForwardKind.PREFILL] * canvas.batch
        visible = np.zeros((canvas.batch, slots), dtype=bool)
        keep = [np.ones(positions.size, dtype=bool) for positions in fed]
        return feed(kinds, canvas.tokens, fed, visible, keep, "causal", None)

    def _step(self, canvas: Canvas, request: Request, prefixes: list[_Prefix], slots: int) -> Plan:
        tokens = canvases(canvas, request)
        copies = len(tokens) // canvas.batch
        stored = np.array([prefix.tokens.size for prefix in prefixes])
        fed, keep = [], []
        for entry, own in enumerate(tokens):
            row = entry % canvas.batch
            hypothesis = entry >= canvas.batch
            prefix, start, length = prefixes[row], stored[row], canvas.length[row]
            if hypothesis and own[0] < 0:
                fed.append(np.zeros(0, dtype=np.int64))
                keep.append(np.zeros(0, dtype=bool))
                continue
            if hypothesis and (own[:start] != prefix.tokens[:start]).any():
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
            keep.append((fed[-1] < run) & (not hypothesis))
            if not hypothesis:
                prefix.tokens = own[:run].copy()
        kinds = [ForwardKind.STEP] * canvas.batch
        visible = np.tile(np.arange(slots) < stored[:, None], (copies, 1))
        wanted = np.tile(request.positions, (copies, 1))
        return feed(kinds, tokens, fed, visible, keep, "causal", wanted)

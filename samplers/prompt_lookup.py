"""Prompt lookup: the text so far drafts, an autoregressive model verifies itself.

Saxena, "Prompt Lookup Decoding" (2023, code released without a paper): the last `ngram` tokens are
looked up earlier in the text, and what followed them there first is the draft; shorter n-grams
where the longest is not found. The model verifies as in speculative sampling with a one-hot draft,
so that what comes out is its own decoding. A baseline for drafters that are models: it costs no
forward, and helps where an answer copies its prompt.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from jaxtyping import Bool, Int

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Need, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from samplers.parts.checks import not_below
from samplers.parts.speculation import allowed, check_proposer, verified


@dataclass(frozen=True, kw_only=True)
class PromptLookup(Sampler):
    draft_length: int
    """Tokens per draft at most (>= 1)."""
    ngram: int
    """Tokens that are looked up at first (>= 1)."""

    conf_dtype: scores.ConfDtype = field(init=False, default="float64")

    needs: ClassVar[frozenset[Need]] = frozenset({"hypotheses"})
    fresh_draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        not_below("draft_length", self.draft_length, 1)
        not_below("ngram", self.ngram, 1)
        check_proposer(self.proposer)

    def commits_ahead(self) -> bool:
        return False

    def check_model(self, spec: ModelSpec) -> None:
        super().check_model(spec)
        if not spec.autoregressive:
            raise ConfigError(
                "sampler=prompt_lookup verifies by next tokens under causal attention; the model's "
                f"attention is {spec.attention} with a shift of {spec.logit_shift} (a causal model "
                "reads as autoregressive with logit_shift=1)"
            )

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        read, wanted = canvas.tokens.copy(), np.zeros_like(eligible)
        for row in np.flatnonzero(eligible.any(axis=1)):
            start = int(eligible[row].argmax())
            closed = ~eligible[row, start:]
            room = int(closed.argmax()) if closed.any() else closed.size
            draft = self._draft(canvas.tokens[row, :start])[: room - 1]
            read[row, start : start + draft.size] = draft
            wanted[row, start : start + draft.size + 1] = True
        return Request(pad_positions(wanted), read[:, None])

    def _draft(self, text: Int[np.ndarray, "tokens"]) -> Int[np.ndarray, "draft"]:
        for n in range(min(self.ngram, text.size - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(text[:-1], n)
            found = (windows == text[-n:]).all(axis=1).nonzero()[0]
            if found.size:
                return text[found[0] + n :][: self.draft_length]
        return text[:0]

    def select(self, view: View, state: SamplerState) -> Decision:
        assert view.branches is not None
        draft = view.branches[:, 0].gather(1, view.positions.clamp(min=0))
        draft = draft.where((view.positions >= 0) & (draft != view.canvas.mask_id), -1)
        logits = allowed(view, draft)
        # A mask is no token of an answer.
        logits[..., view.canvas.mask_id] = -float("inf")
        p = self.proposer.distribution(logits)  # type: ignore[attr-defined]
        q = F.one_hot(draft.clamp(min=0), p.shape[-1]).double() * (draft >= 0)[..., None]
        return verified(view, p, q, draft)

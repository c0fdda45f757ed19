"""CreditDecoding (arXiv 2510.06133): evidence of earlier steps is added to the logits.

Per position and token a credit decays by `decay` per step and grows by p^exponent whenever the
token is the most likely one; tokens and confidences are then read from l + fusion * ln(1 + credit).
The credit includes the current step and starts anew in every block. A logits transform: it composes
with every rule (`sampler=localleap sampler/logits_transform=credit`); `sampler=credit` is the
authors' choice, dInfer's threshold.

Presets: `credit` dInfer's class (0.7 / 0.8 / 0.2, threshold 0.8) [code]; `credit_paper` (0.65 /
0.7 / 0.2, 0.95) [second hand]; `credit_v1` (0.70 / 0.65 / 0.5) [re-implementation];
`credit_adaptive`: fusion = decay = 1 - masked fraction of the block [second hand; that the fraction
is the block's is inferred]. Part of the gain is a lower effective threshold, since credit lifts
every confidence (0.80 acts like 0.72 to 0.55): compare with the matching plain one. Credit of
remasked positions goes on decaying [inferred].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm.step import scores
from dllm.step.plan import Need
from dllm.step.prediction import View
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import in_unit_interval, not_below


_TOKENS, _CREDIT = "credit_tokens", "credit"
_NO_TOKEN = -1


@dataclass(frozen=True, kw_only=True)
class TraceCredit:
    """Sparse and exact: only tokens that have been most likely once hold credit, so a position
    keeps a short list of (token, credit) instead of a column over the vocabulary."""

    fusion: float
    """Weight of ln(1 + credit) in the logits (alpha, >= 0)."""
    decay: float
    """Factor on all credit per step (beta, in [0, 1])."""
    exponent: float
    """Power of the probability that is credited (gamma, >= 0)."""
    adaptive: bool
    """Fusion and decay are 1 - masked fraction of the block instead."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        not_below("logits_transform.fusion", self.fusion, 0)
        not_below("logits_transform.exponent", self.exponent, 0)
        in_unit_interval("logits_transform.decay", self.decay)

    def fields(self) -> tuple[StateField, ...]:
        shape = ("canvas", 1)
        return (
            StateField(_TOKENS, shape, torch.int64, fill=_NO_TOKEN, reset="block"),
            StateField(_CREDIT, shape, torch.float32, reset="block"),
        )

    def _progress(self, view: View) -> Float[Tensor, "batch 1"]:
        """1 - masked fraction of the block, before this step's commits."""
        canvas = view.canvas
        masks = torch.tensor([canvas.masked_in_block(row) for row in range(canvas.batch)])
        length = torch.as_tensor(canvas.block_end - canvas.block_start)
        return (1 - masks / length.clamp(min=1)).to(view.device)[:, None]

    def observe(self, view: View, state: SamplerState) -> None:
        decay = self._progress(view)[..., None] if self.adaptive else self.decay
        state[_CREDIT] = state[_CREDIT] * decay
        best = view.top[1]
        gain = scores.top_confidence(view.logits, "float32") ** self.exponent
        # Decided positions only decay; rows that were not computed anew have nothing to add.
        batch, row = view.candidates.nonzero(as_tuple=True)
        at, token = view.positions[batch, row], best[batch, row]
        held = state[_TOKENS][batch, at]
        # The token's own place, or else the first free one.
        fit, slot = ((held == token[:, None]) * 2 + (held == _NO_TOKEN)).max(dim=1)
        if not fit.all():
            slot = slot.where(fit > 0, held.shape[1])
            self._widen(state)
        state[_TOKENS][batch, at, slot] = token
        state[_CREDIT][batch, at, slot] += gain[batch, row]

    @staticmethod
    def _widen(state: SamplerState) -> None:
        tokens, credit = state[_TOKENS], state[_CREDIT]
        state[_TOKENS] = torch.cat((tokens, torch.full_like(tokens, _NO_TOKEN)), dim=-1)
        state[_CREDIT] = torch.cat((credit, torch.zeros_like(credit)), dim=-1)

    def apply(self, view: View, state: SamplerState) -> View:
        index = view.positions.clamp(min=0)[..., None].expand(-1, -1, state[_TOKENS].shape[-1])
        tokens = state[_TOKENS].gather(1, index)
        fusion = self._progress(view)[..., None] if self.adaptive else self.fusion
        bonus = fusion * state[_CREDIT].gather(1, index).log1p()
        logits = view.logits.to(torch.float32, copy=True)
        return view.with_logits(logits.scatter_add_(2, tokens.clamp(min=0), bonus))

"""Attention rollout of one forward: how much each slot went into the states of all rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from dllm.models.attention import hiding
from dllm.models.transformer import KeyValueExchange, Layer
from dllm.step.plan import Plan


class AttentionRollout:
    """Runs the layers of a forward and multiplies up their attention (d2Cache).

    Per layer A = mean over the heads, R <- rownorm(A + I) R with R = I at the start; rows that are
    not fed pass on what they had. Needs keys in the order of their slots: a plan whose rows are all
    kept, or that feeds the whole canvas and keeps nothing else.
    """

    def __init__(
        self,
        plan: Plan,
        exchange: KeyValueExchange | None,
        mask: Tensor | None,
        dtype: torch.dtype,
    ):
        self.exchange, self.bias = exchange, hiding(mask, dtype)
        self.slots = plan.slots
        self.rollout: Tensor | None = None

    def layer(
        self, index: int, layer: Layer, x: Tensor, tables: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "batch rows d"]:
        """States after the layer."""
        attn, normed = layer.attn, layer.attn_norm(x)
        q, k, v = attn.queries(normed, tables), attn.keys(normed, tables), attn.values(normed)
        if self.exchange is not None:
            k, v = self.exchange(index, k, v)
        bias = None if self.bias is None else self.bias.to(x.device)
        self._multiply(q, k, bias)
        x = x + attn.attend(q, k, v, bias)
        return x + layer.mlp(layer.mlp_norm(x))

    def influence(self) -> Float[Tensor, "batch slots"]:
        """Column sums."""
        assert self.rollout is not None, "no layer was run"
        return self.rollout.sum(dim=1)

    def _multiply(self, q: Tensor, k: Tensor, bias: Tensor | None) -> None:
        batch, width = len(q), k.shape[2]
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        weight = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if bias is not None:
            weight = weight + bias
        attention = weight.float().softmax(dim=-1).mean(dim=1)  # [batch, rows, slots]
        if self.rollout is None:
            self.rollout = torch.eye(width, device=q.device).repeat(batch, 1, 1)
        self.rollout, slots = self.rollout.to(q.device), self.slots.to(q.device)
        at = slots.clamp(min=0)
        attention = attention.scatter_add(2, at[..., None], torch.ones_like(attention[..., :1]))
        attention = attention / attention.sum(dim=-1, keepdim=True)
        mixed = attention @ self.rollout
        for row in range(batch):
            # Padding rows write nothing.
            real = slots[row] >= 0
            self.rollout[row, slots[row, real]] = mixed[row, real]

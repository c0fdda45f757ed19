"""Layers that recompute some of their rows and keep the others' outputs (dLLM-Cache)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dllm.forward.store import KVStore
from dllm.models.attention import hiding
from dllm.models.transformer import Layer, take
from dllm.step.plan import Plan


DIGITS = 6
"""Decimals of the cosine by which rows are ranked."""


class PartialForward:
    """One forward of a plan with `partial`; every layer sees the states of all rows.

    The residual stream is always that of the current tokens: what is kept are the outputs of
    attention and feed-forward that are added to it.
    """

    def __init__(self, plan: Plan, store: KVStore, d_model: int):
        assert plan.partial is not None
        self.plan, self.partial, self.store = plan, plan.partial, store
        self.width = plan.slots.shape[1]
        self.outputs = store.feature_store(d_model)
        self.fed = plan.slots >= 0
        mask = None if self.fed.all() else self.fed[:, None, None]
        self.bias = hiding(mask, store.keys[0].dtype)

    def layer(
        self,
        index: int,
        layer: Layer,
        x: Float[Tensor, "batch rows d"],
        tables: tuple[Tensor, Tensor],
    ) -> Float[Tensor, "batch rows d"]:
        """States after the layer."""
        attn, keys, values = layer.attn, self.store.keys[index], self.store.values[index]
        normed = layer.attn_norm(x)
        if index == 0 and self.partial.whole_first_layer:
            chosen = self.fed.to(x.device)
        else:
            chosen = self.partial.whole.to(x.device) | self._changed(attn.values(normed), values)
        self.partial.chosen.append(chosen)
        rows, real = _picked(chosen)
        own = take(normed, rows)
        cos, sin = tables
        at = take(cos, rows), take(sin, rows)
        fresh = attn.values(own)
        _put(keys, rows, real, attn.keys(own, at))
        _put(values, rows, real, fresh)
        bias = None if self.bias is None else self.bias.to(x.device)
        out = attn.attend(
            attn.queries(own, at), keys[:, :, : self.width], values[:, :, : self.width], bias
        )
        attended, forwarded = self.outputs[index]
        _put(attended[:, None], rows, real, out[:, None])
        x = x + attended[:, : self.width]
        _put(forwarded[:, None], rows, real, layer.mlp(layer.mlp_norm(take(x, rows)))[:, None])
        return x + forwarded[:, : self.width]

    def finish(self) -> None:
        """Notes in the store what was written; the last layer's choice stands for all layers."""
        store = self.store
        chosen = F.pad(self.partial.chosen[-1], (0, store.slots - self.width)).cpu()
        tokens = F.pad(self.plan.tokens, (0, store.slots - self.width))
        store.valid |= chosen
        store.token[chosen] = tokens[chosen]

    def _changed(self, fresh: Tensor, stored: Tensor) -> Bool[Tensor, "batch rows"]:
        """The pool's rows whose values are least similar to the stored ones, which they replace."""
        count = self.partial.count.to(fresh.device)
        pool = self.partial.pool.to(fresh.device) & (count > 0)[:, None]
        if not pool.any():
            return pool
        old = stored[:, :, : self.width]
        new, last = (v.transpose(1, 2).flatten(2).double() for v in (fresh, old))
        # Rows that did not change differ from 1 by rounding, which depends on the batch: they tie.
        similarity = F.cosine_similarity(new, last, dim=-1).round(decimals=DIGITS)
        similarity = similarity.masked_fill(~pool, torch.inf)
        order = similarity.argsort(dim=1, stable=True)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(self.width, device=order.device).expand_as(order)
        )
        stored[:, :, : self.width] = fresh.where(pool[:, None, :, None], old)
        return pool & (rank < count[:, None])


def _picked(chosen: Bool[Tensor, "batch rows"]) -> tuple[Tensor, Tensor | None]:
    """Indices of the chosen rows [batch, width], and which of them are no padding (None = all)."""
    count = chosen.sum(dim=1)
    width = int(count.max())
    rows = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    if (count == width).all():
        return rows, None
    return rows, torch.arange(width, device=rows.device) < count[:, None]


def _put(target: Tensor, rows: Tensor, real: Tensor | None, fresh: Tensor) -> None:
    """Writes rows of a tensor [batch, heads, slots, width] in place."""
    index = rows[:, None, :, None].expand(-1, target.shape[1], -1, target.shape[3])
    if real is not None:
        fresh = fresh.where(real[:, None, :, None], target.gather(2, index))
    target.scatter_(2, index, fresh)

"""The one transformer behind every family: pre-norm RMSNorm, rotary embedding, SwiGLU or experts.

Follows the order of operations of the official modelling files (cast before the norm weight,
half-split rotary, grouped-query heads repeated contiguously), because in bfloat16 another order
gives other tokens. It knows tokens, positions and attention masks; caches and logit alignment live
in `dllm.forward.predictor`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dllm.models.attention import attend, hiding
from dllm.models.fused import kernels_for
from dllm.models.linear import Linear, product
from dllm.models.moe import Experts
from dllm.models.spec import ModelSpec
from dllm.models.swiglu import SwiGLU


KeyValueExchange = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Called once per layer with (layer, keys, values) of the fed rows, each [batch, kv_heads, rows,
head_dim] and keys already rotated; returns the keys and values to attend to."""


@dataclass(frozen=True)
class Reading:
    """What a forward must be told by models that read the block under denoising otherwise than what
    is decided."""

    block: Bool[Tensor, "entries rows"]
    """Rows of the block; the others are decided."""
    keys: Int[Tensor, "entries keys"]
    """Position of each key that the layers attend to."""
    logits: Float[Tensor, "entries wanted vocab"] | None
    """The previous step's prediction, on which the block is conditioned; NaN where none is."""
    rows: Int[Tensor, "entries wanted"]
    """Row that each entry of `logits` belongs to."""


LayerRun = Callable[[int, "Layer", Tensor, tuple[Tensor, Tensor]], Tensor]
"""Stands in for the layers: called once per layer with (index, layer, states [batch, rows,
d_model], rotary tables); returns the states after it."""


class RMSNorm(nn.Module):
    def __init__(self, width: int, spec: ModelSpec):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = spec.norm_eps
        self.weight_fp32 = spec.norm_weight_fp32

    def forward(self, x: Tensor) -> Tensor:
        kernels = kernels_for(x)
        if kernels is not None:
            return kernels.normed(x, self.weight, self.eps, self.weight_fp32)
        # Computed in float32 in any case; given the weight, torch's versions round differently.
        if self.weight_fp32:
            wide, weight = x.float(), self.weight.float()
            return F.rms_norm(wide, weight.shape, weight, self.eps).to(x.dtype)
        return F.rms_norm(x, self.weight.shape, None, self.eps) * self.weight


def rotary_tables(positions: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Cosines and sines (see `turning_tables`), each [batch, 1, rows, rotary_dim] in float32, of
    `positions` [batch, rows].

    Computed on the fly: a stored table would be cast along with the module, and bfloat16
    frequencies are off by radians at position 1,024.
    """
    exponent = torch.arange(0, spec.rotary_dim, 2, device=positions.device).float()
    inverse = 1.0 / spec.rope_theta ** (exponent / spec.rotary_dim)
    return turning_tables(positions[:, None, :, None].float() * inverse)


def turning_tables(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of a head [..., 2 * pairs] and of the same with its halves exchanged; the sum is the
    head turned by the angles [..., pairs]: cosines, and sines that are negative on the left."""
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, fp32: bool) -> Tensor:
    """Half-split rotary embedding of the leading dimensions of x [batch, heads, rows, head_dim]."""
    kernels = kernels_for(x)
    if kernels is not None:
        return kernels.rotated(x, cos, sin, fp32)
    width = cos.shape[-1]
    turned, kept = x[..., :width], x[..., width:]
    if not fp32:
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    swapped = turned.roll(width // 2, dims=-1)
    # Into what is new anyway: at many rows a pass over fresh memory is what counts.
    swapped = swapped.mul_(sin) if swapped.dtype == sin.dtype else swapped * sin
    turned = (turned * cos).add_(swapped).to(x.dtype)
    return torch.cat((turned, kept), dim=-1) if kept.shape[-1] else turned


def take(x: Tensor, rows: Int[Tensor, "batch wanted"]) -> Tensor:
    """Rows of x [batch or 1, rows, width] or [batch or 1, heads, rows, width], each sequence's
    own."""
    if len(x) == len(rows) == 1:
        # Small as it is, a gather takes several times as long.
        return x.index_select(-2, rows[0])
    index = rows[:, :, None] if x.dim() == 3 else rows[:, None, :, None]
    heads = x.shape[1:-2]
    return x.expand(len(rows), *x.shape[1:]).gather(-2, index.expand(-1, *heads, -1, x.shape[-1]))


class Attention(nn.Module):
    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        width, kv_width = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
        self.q = Linear(spec.d_model, width, bias=spec.qkv_bias)
        self.k = Linear(spec.d_model, kv_width, bias=spec.qkv_bias)
        self.v = Linear(spec.d_model, kv_width, bias=spec.qkv_bias)
        self.o = Linear(width, spec.d_model, bias=False)
        if spec.qk_norm:
            self.q_norm = RMSNorm(spec.head_dim, spec)
            self.k_norm = RMSNorm(spec.head_dim, spec)

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        bias: Tensor | None,
        layer: int,
        exchange: KeyValueExchange | None,
        rows: Tensor | None = None,
    ) -> Tensor:
        k, v = self.keys(x, tables), self.values(x)
        if rows is not None:
            x, tables = take(x, rows), (take(tables[0], rows), take(tables[1], rows))
            if bias is not None and bias.shape[-2] > 1:
                bias = take(bias, rows)
        q = self.queries(x, tables)
        if exchange is not None:
            k, v = exchange(layer, k, v)
        return self.attend(q, k, v, bias)

    def queries(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Rotated [batch, heads, rows, head_dim]; likewise the keys, per key/value head."""
        q = self._heads(self.q(x))
        q = self.q_norm(q) if self.spec.qk_norm else q
        return rotate(q.transpose(1, 2), *tables, self.spec.rope_fp32)

    def keys(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        k = self._heads(self.k(x))
        k = self.k_norm(k) if self.spec.qk_norm else k
        return rotate(k.transpose(1, 2), *tables, self.spec.rope_fp32)

    def values(self, x: Tensor) -> Tensor:
        return self._heads(self.v(x)).transpose(1, 2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.spec.head_dim))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """The block's output [batch, rows, d_model] of the queries' rows."""
        out = attend(q, k, v, bias, 1 / math.sqrt(self.spec.head_dim))
        return self.o(out.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    def __init__(self, spec: ModelSpec, index: int):
        super().__init__()
        self.attn_norm = RMSNorm(spec.d_model, spec)
        self.attn = Attention(spec)
        self.mlp_norm = RMSNorm(spec.d_model, spec)
        self.mlp = feed_forward(spec, index)

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        bias: Tensor | None,
        layer: int,
        exchange: KeyValueExchange | None,
        rows: Tensor | None = None,
        real: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """States of all rows, or of those in `rows` [batch, wanted]; either way the keys and values
        of all are computed. The feed-forward, most of a layer's work, is left out for rows that are
        not `real` (indices of sequences and of rows)."""
        attended = self.attn(self.attn_norm(x), tables, bias, layer, exchange, rows)
        x = attended + (x if rows is None else take(x, rows))
        if rows is not None or real is None:
            return x + self.mlp(self.mlp_norm(x))
        own = x[real]
        x[real] = own + self.mlp(self.mlp_norm(own))
        return x


def feed_forward(spec: ModelSpec, index: int) -> nn.Module:
    if spec.moe is not None and spec.is_moe(index):
        return Experts(spec.d_model, spec.moe)
    return SwiGLU(spec.d_model, spec.d_ff)


class Transformer(nn.Module):
    """Stack of layers over token embeddings.

    Built on the meta device when a checkpoint fills it, with torch's initial values for training.
    """

    graphs = False
    """Whether forwards of one shape are recorded and replayed (CUDA graphs)."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.vocab_size, spec.d_model)
        self.layers = nn.ModuleList(self.make_layer(i) for i in range(spec.n_layers))
        self.norm = RMSNorm(spec.d_model, spec)
        self.head = (
            None if spec.tied_embeddings else Linear(spec.d_model, spec.vocab_size, bias=False)
        )

    def make_layer(self, index: int) -> nn.Module:
        return Layer(self.spec, index)

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    @property
    def layer_devices(self) -> list[torch.device]:
        """Where each layer computes; weights kept on the host come to the embedding's device."""
        found = [next(layer.parameters()).device for layer in self.layers]
        return [self.device if device.type == "meta" else device for device in found]

    def hidden(
        self,
        token_ids: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        exchange: KeyValueExchange | None = None,
        run: LayerRun | None = None,
        reading: Reading | None = None,
        rows: Int[Tensor, "batch wanted"] | None = None,
        real: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """Final normed states [batch, rows, d_model] of the fed rows, or of those in `rows` alone:
        the last layer then computes no others.

        `token_ids` int64 [batch, rows]; `positions` int64 [batch, rows], rotary positions, default
        0..rows-1; `mask` bool broadcastable to [batch, 1, rows, keys], None = all; `run` computes
        the layers in their stead (mask and exchange are then its own affair); `reading` is for
        models that tell the block under denoising from the rest; `real`: sequence and row of what
        is no padding, None = everything.
        """
        assert reading is None, "all rows are read the same way"
        if positions is None:
            positions = torch.arange(token_ids.shape[1], device=token_ids.device)[None]
        tables, bias = rotary_tables(positions, self.spec), hiding(mask, self.dtype)
        x = self.embed(token_ids)
        # What is called in the layer's stead has no hooks that bring its inputs to it.
        devices = [] if run is None else self.layer_devices
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            if run is None:
                x = layer(x, tables, bias, index, exchange, rows if index == last else None, real)
            else:
                cos, sin = (table.to(devices[index]) for table in tables)
                x = run(index, cast(Layer, layer), x.to(devices[index]), (cos, sin))
        if run is not None and rows is not None:
            x = take(x, rows.to(x.device))
        # Spread over devices, the last layers may live elsewhere; otherwise nothing moves.
        return self.norm(x).to(token_ids.device)

    def logits(self, hidden: Tensor) -> Tensor:
        """LM head on the given rows only: [..., d_model] -> [..., vocab]."""
        # The head as a module: on several devices its hook brings the rows to it.
        if self.head is None:
            out = product(hidden.to(self.device), self.embed.weight)
        else:
            out = self.head(hidden)
        out = out.to(hidden.device)
        return out.float() if self.spec.logits_fp32 else out

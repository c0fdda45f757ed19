"""DiffusionGemma's transformer: sandwiched norms, sliding and full layers, experts beside a dense
feed-forward, self-conditioning.

One stack of weights reads two kinds of rows. What is decided is read causally, as by an
autoregressive Gemma 4 (its "encoder"); the block under denoising reads all of that and itself (the
"decoder"), its embeddings carry a signal from the previous step's prediction, and every layer
scales the two kinds by a factor of their own. Order of operations as in transformers'
`modeling_diffusion_gemma.py`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dllm.models.attention import attend, hiding
from dllm.models.linear import Linear, product
from dllm.models.moe import Experts, softmax_router
from dllm.models.spec import ModelSpec, MoeSpec, WindowSpec
from dllm.models.swiglu import SwiGLU
from dllm.models.transformer import (
    KeyValueExchange,
    LayerRun,
    Reading,
    RMSNorm,
    Transformer,
    rotary_tables,
    rotate,
    take,
    turning_tables,
)


def normed(x: Tensor, eps: float) -> Tensor:
    """RMS norm without a weight, in float32."""
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def spaced_tables(positions: Tensor, two: WindowSpec) -> tuple[Tensor, Tensor]:
    """Rotary tables of the full layers [batch, 1, rows, head_dim]: the first pairs turn, with the
    frequencies that they would have if all did; the others stand still."""
    turning = torch.arange(0, two.rope_dim, 2, device=positions.device).float()
    inverse = F.pad(
        1.0 / two.rope_theta ** (turning / two.head_dim), (0, (two.head_dim - two.rope_dim) // 2)
    )
    return turning_tables(positions[:, None, :, None].float() * inverse)


class GemmaAttention(nn.Module):
    """Normed queries, keys and values, no scaling; a full layer's values are its keys."""

    def __init__(self, spec: ModelSpec, index: int):
        super().__init__()
        self.spec, self.heads = spec, spec.n_heads
        self.kv_heads, self.head_dim = spec.kv_shape(index)
        assert spec.windows is not None
        full = index in spec.windows.full_layers
        width, kv_width = spec.n_heads * self.head_dim, self.kv_heads * self.head_dim
        self.q = Linear(spec.d_model, width, bias=False)
        self.k = Linear(spec.d_model, kv_width, bias=False)
        self.v = None if full else Linear(spec.d_model, kv_width, bias=False)
        self.o = Linear(width, spec.d_model, bias=False)
        self.q_norm = RMSNorm(self.head_dim, spec)
        self.k_norm = RMSNorm(self.head_dim, spec)

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        bias: Tensor | None,
        layer: int,
        exchange: KeyValueExchange | None,
    ) -> Tensor:
        raw = self._heads(self.k(x))
        values = raw if self.v is None else self._heads(self.v(x))
        q = rotate(self.q_norm(self._heads(self.q(x))), *tables, fp32=False)
        k = rotate(self.k_norm(raw), *tables, fp32=False)
        v = normed(values, self.spec.norm_eps)
        if exchange is not None:
            k, v = exchange(layer, k, v)
        out = attend(q, k, v, bias, scale=1.0)
        return self.o(out.transpose(1, 2).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class GemmaExperts(Experts):
    """Experts whose router reads the normed residual stream and scales each expert's share."""

    def __init__(self, spec: ModelSpec, moe: MoeSpec):
        super().__init__(spec.d_model, moe)
        self.eps = spec.norm_eps
        self.router_scale = nn.Parameter(torch.ones(spec.d_model))
        self.expert_scale = nn.Parameter(torch.ones(moe.n_experts))

    def forward(self, x: Tensor, stream: Tensor | None = None) -> Tensor:
        """`x` is what the experts read, `stream` what the router reads."""
        assert stream is not None, "the router has a stream of its own"
        flat, width = x.reshape(-1, x.shape[-1]), x.shape[-1]
        routed = normed(stream.reshape(-1, width), self.eps) * self.router_scale * width**-0.5
        experts, weights = softmax_router(product(routed, self.router), self.spec)
        weights = weights * self.expert_scale[experts]
        # As the reference adds: one expert after the other, ascending, each in the model dtype.
        experts, order = experts.sort(dim=-1)
        weights = weights.gather(-1, order)
        outputs = (self.compute(flat, experts) * weights[..., None]).to(x.dtype)
        total, *further = outputs.unbind(dim=1)
        for output in further:
            total = total + output
        return total.view(x.shape)


class GemmaLayer(nn.Module):
    decoder_scale: Tensor
    encoder_scale: Tensor

    def __init__(self, spec: ModelSpec, index: int):
        super().__init__()
        assert spec.moe is not None
        self.attn_norm = RMSNorm(spec.d_model, spec)
        self.attn = GemmaAttention(spec, index)
        self.attn_after_norm = RMSNorm(spec.d_model, spec)
        self.mlp_norm = RMSNorm(spec.d_model, spec)
        self.mlp = SwiGLU(spec.d_model, spec.d_ff, "gelu_tanh")
        self.mlp_after_norm = RMSNorm(spec.d_model, spec)
        self.experts_norm = RMSNorm(spec.d_model, spec)
        self.experts = GemmaExperts(spec, spec.moe)
        self.experts_after_norm = RMSNorm(spec.d_model, spec)
        self.after_norm = RMSNorm(spec.d_model, spec)
        self.register_buffer("decoder_scale", torch.ones(1))
        self.register_buffer("encoder_scale", torch.ones(1))

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        bias: Tensor | None,
        layer: int,
        exchange: KeyValueExchange | None,
        block: Bool[Tensor, "batch rows"],
    ) -> Tensor:
        x = x + self.attn_after_norm(self.attn(self.attn_norm(x), tables, bias, layer, exchange))
        dense = self.mlp_after_norm(self.mlp(self.mlp_norm(x)))
        routed = self.experts_after_norm(self.experts(self.experts_norm(x), x))
        x = x + self.after_norm(dense + routed)
        scale = torch.where(block[..., None], self.decoder_scale, self.encoder_scale)
        return x * scale.to(x.dtype)


class SelfConditioning(nn.Module):
    """Adds to a block's embeddings what the model expected of it one step before."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.norm = RMSNorm(spec.d_model, spec)
        self.mlp = SwiGLU(spec.d_model, spec.d_ff, "gelu_tanh")
        self.eps = spec.norm_eps

    def forward(self, embedded: Tensor, expected: Tensor) -> Tensor:
        return normed(embedded + self.mlp(self.norm(expected)), self.eps)


class DiffusionGemma(Transformer):
    def __init__(self, spec: ModelSpec):
        super().__init__(spec)
        self.conditioning = SelfConditioning(spec)

    def make_layer(self, index: int) -> nn.Module:
        return GemmaLayer(self.spec, index)

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
        """As the plain transformer's; `reading` is needed, `run` is not supported. Padding is
        computed along."""
        assert positions is not None and reading is not None and run is None
        two = self.spec.windows
        assert two is not None
        x = self.embed(token_ids) * self._scale
        block = reading.block
        if block.any():
            read = self.conditioning(x, self._expected(reading, x))
            x = read.where(block[..., None], x)
        window = _window(positions, reading, two.window)
        seen = window if mask is None else mask & window
        sliding = rotary_tables(positions, self.spec), hiding(seen, self.dtype)
        full = spaced_tables(positions, two), hiding(mask, self.dtype)
        for index, layer in enumerate(self.layers):
            kind = full if index in two.full_layers else sliding
            x = layer(x, *kind, index, exchange, block)
        if rows is not None:
            x = take(x, rows.to(x.device))
        return self.norm(x).to(token_ids.device)

    def logits(self, hidden: Tensor) -> Tensor:
        cap, out = self.spec.logit_cap, super().logits(hidden)
        return out if cap is None else (out / cap).tanh() * cap

    @property
    def _scale(self) -> Tensor:
        # In the model dtype, where the root is rounded.
        return torch.tensor(self.spec.d_model**0.5, dtype=self.dtype, device=self.device)

    def _expected(self, reading: Reading, x: Tensor) -> Float[Tensor, "entries rows d_model"]:
        """Mean embedding under the previous step's prediction; 0 where there is none."""
        expected, logits = torch.zeros_like(x), reading.logits
        if logits is None:
            return expected
        p = logits.to(self.dtype).softmax(dim=-1, dtype=torch.float32).to(self.dtype)
        found = ((p @ self.embed.weight) * self._scale).nan_to_num(0.0)
        index = reading.rows[..., None].expand_as(found)
        return expected.scatter(1, index, found)


def _window(
    positions: Int[Tensor, "entries rows"], reading: Reading, width: int
) -> Bool[Tensor, "entries 1 rows keys"]:
    """Keys in a sliding layer's reach: the last `width` positions, the row's own included. A block
    reaches as far back as its first position does, and all of itself."""
    last = torch.iinfo(positions.dtype).max
    start = positions.where(reading.block, last).amin(dim=1, keepdim=True)
    reach = torch.where(reading.block, start, positions) - width
    return (reading.keys[:, None, :] > reach[..., None])[:, None]

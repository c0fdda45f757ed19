"""Attention: torch's own, or head by head where that is faster.

torch's attention on the host multiplies as its float32 products do (see `dllm.models.linear`). The
products there make up for calling them once per key/value head where they are large, and all
queries that read the same keys are multiplied at once, so that no keys are repeated. Measured on an
AMD EPYC with AVX-512, one core, 8 heads of 64: 1.1 times faster at 32 rows and 1,024 keys, 1.6 at
384 of both and 1.7 at 2,048; 16 heads of 128 that share 4 of keys: 2.5 and 1.8 at the first two.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dllm.models.linear import has_kernel, product


WORTH = 2**21
"""Multiplications of one product from which on it is worth a call of its own."""
CHUNK = 2**19
"""Scores at a time: they stay in the processor's cache."""


CUDNN = 2**22
"""Scores of a head below which torch may not ask cuDNN on a GPU. It prepares itself anew for every
number of rows and keys that it meets, which takes 54 to 68 ms (measured on an H200, torch 2.11,
bfloat16, 32 heads of 128); then 2,048 of both take 0.11 ms instead of 0.20, 512 take 0.034 instead
of 0.025."""
ALIGNED = 8
"""Elements between rows of a bias of which a GPU's kernels ask a multiple."""


def hiding(
    mask: Bool[Tensor, "*shape keys"] | None, dtype: torch.dtype
) -> Float[Tensor, "*shape keys"] | None:
    """What is added to scores so that only what `mask` tells is seen; None = all is.

    Made once for all layers: from a mask, torch's attention makes the same in every call. Not
    infinite: a row that sees nothing stays a number.
    """
    if mask is None:
        return None
    *shape, keys = mask.shape
    wide = mask.new_zeros(*shape, -(-keys // ALIGNED) * ALIGNED, dtype=dtype)
    return wide[..., :keys].masked_fill_(~mask, torch.finfo(dtype).min)


def attend(
    q: Float[Tensor, "batch heads rows head_dim"],
    k: Float[Tensor, "batch kv_heads keys head_dim"],
    v: Float[Tensor, "batch kv_heads keys head_dim"],
    bias: Float[Tensor, "..."] | None,
    scale: float,
) -> Float[Tensor, "batch heads rows head_dim"]:
    """Mixed values; `bias` (see `hiding`) is broadcastable to [batch, 1, rows, keys]."""
    if heads_pay(q, k):
        return _by_heads(q, k, v, bias, scale)
    group = q.shape[1] // k.shape[1]
    if group > 1:
        # Repeated rather than enable_gqa: with a mask that option falls back to slow kernels.
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    # Training's shapes come back.
    if q.is_cuda and not torch.is_grad_enabled() and q.shape[2] * k.shape[2] < CUDNN:
        return _without_cudnn(q, k, v, bias, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def _without_cudnn(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> Float[Tensor, "batch heads rows head_dim"]:
    allowed = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(allowed)


def heads_pay(q: Tensor, k: Tensor) -> bool:
    """Whether one product per key/value head is to be had and faster."""
    work = q.shape[1] // k.shape[1] * q.shape[2] * k.shape[2] * k.shape[3]
    return work >= WORTH and q.dtype in (torch.float32, torch.bfloat16) and has_kernel(q.device)


def _by_heads(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Computed in float32 and rounded once, at the end: torch's own rounds the weights as well."""
    batch, heads, rows, width = q.shape
    kv_heads, keys = k.shape[1:3]
    group = heads // kv_heads
    step = max(1, CHUNK // (group * keys))
    out = q.new_empty(batch, rows, heads, width).transpose(1, 2)
    if bias is not None:
        bias = bias.expand(batch, 1, rows, keys)
    for entry in range(batch):
        queries, to = (
            x.unflatten(0, (kv_heads, group)) for x in (q[entry].float() * scale, out[entry])
        )
        read, mixed = (x[entry].float().contiguous() for x in (k, v))
        for head in range(kv_heads):
            for start in range(0, rows, step):
                part = slice(start, start + step)
                scores = product(queries[head, :, part], read[head])
                if bias is not None:
                    scores += bias[entry, 0, part]
                to[head, :, part] = product(scores.softmax(dim=-1), mixed[head].t())
    return out

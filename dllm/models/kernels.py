# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportIndexIssue=false
"""What a layer does between its products, one Triton kernel each.

torch's own operations read and write all rows once per operation, and a GPU waits for the host
between them where rows are few. Values are rounded where torch's operations round them; only the
order of a norm's sum is another one. Needs the package triton, which torch brings along on Linux.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


BLOCK = 1024
"""Elements per program where each stands for itself."""


@triton.jit
def _normed(x, weight, out, width, eps, COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    inside = at < width
    dtype = out.dtype.element_ty
    values = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    values *= tl.rsqrt(tl.sum(values * values, axis=0) / width + eps)
    scale = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    if not WIDE:
        values = values.to(dtype).to(tl.float32)
    tl.store(out + row * width + at, (values * scale).to(dtype), mask=inside)


def normed(x: Tensor, weight: Tensor, eps: float, wide: bool) -> Tensor:
    """RMSNorm over the last dimension; `wide`: multiplied with the weight before it is rounded."""
    x = x.contiguous()
    width, out = x.shape[-1], torch.empty_like(x)
    columns = triton.next_power_of_2(width)
    warps = min(max(columns // 512, 1), 8)
    with torch.cuda.device_of(x):
        _normed[(x.numel() // width,)](
            x, weight, out, width, eps, COLUMNS=columns, WIDE=wide, num_warps=warps
        )
    return out


@triton.jit
def _rotated(
    x,
    out,
    cos,
    sin,
    rows,
    heads,
    x_batch,
    x_head,
    x_row,
    out_batch,
    out_head,
    out_row,
    table_batch,
    table_row,
    TURNED: tl.constexpr,
    WIDTH: tl.constexpr,
    HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    batch, row = (tl.program_id(0) // rows).to(tl.int64), tl.program_id(0) % rows
    at = tl.arange(0, COLUMNS)
    head = tl.arange(0, HEADS)[:, None]
    dtype = out.dtype.element_ty
    turned = at < TURNED
    opposite = tl.where(at < TURNED // 2, at + TURNED // 2, at - TURNED // 2)
    inside = (head < heads) & (at < WIDTH)
    first = x + batch * x_batch + row * x_row + head * x_head
    own = tl.load(first + at, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(first + opposite, mask=inside & turned, other=0.0).to(tl.float32)
    table = batch * table_batch + row * table_row + at
    by = tl.load(cos + table, mask=turned, other=0.0)
    across = tl.load(sin + table, mask=turned, other=0.0)
    if WIDE:
        found = own * by + other * across
    else:
        by, across = by.to(dtype).to(tl.float32), across.to(dtype).to(tl.float32)
        found = (own * by).to(dtype).to(tl.float32) + (other * across).to(dtype).to(tl.float32)
    target = out + batch * out_batch + row * out_row + head * out_head + at
    tl.store(target, tl.where(turned, found, own).to(dtype), mask=inside)


def rotated(x: Tensor, cos: Tensor, sin: Tensor, wide: bool) -> Tensor:
    """As `dllm.models.transformer.rotate`: x [batch, heads, rows, head_dim], tables
    [batch or 1, 1, rows, rotary_dim] in float32."""
    batch, heads, rows, width = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    out = torch.empty_like(x)
    cos, sin = cos.contiguous(), sin.contiguous()
    with torch.cuda.device_of(x):
        _rotated[(batch * rows,)](
            x,
            out,
            cos,
            sin,
            rows,
            heads,
            *x.stride()[:3],
            *out.stride()[:3],
            cos.stride(0) if len(cos) > 1 else 0,
            cos.stride(2),
            TURNED=cos.shape[-1],
            WIDTH=width,
            HEADS=triton.next_power_of_2(heads),
            COLUMNS=triton.next_power_of_2(width),
            WIDE=wide,
            # Each product is rounded, as torch's are.
            enable_fp_fusion=False,
        )
    return out


@triton.jit
def _gated(gate, up, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    dtype = out.dtype.element_ty
    values = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    values = (values / (1 + tl.exp(-values))).to(dtype).to(tl.float32)
    other = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (values * other).to(dtype), mask=inside)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, both of one shape."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    with torch.cuda.device_of(gate):
        _gated[(triton.cdiv(gate.numel(), BLOCK),)](gate, up, out, gate.numel(), BLOCK=BLOCK)
    return out

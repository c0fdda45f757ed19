"""Attention head by head gives what torch's own gives, in every shape that it is used for."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dllm.models import attention
from dllm.models.attention import ALIGNED, attend, hiding


ROWS, KEYS = 40, 48


@pytest.fixture
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small shapes are worth it as well, and computed in several pieces."""
    monkeypatch.setattr(attention, "WORTH", 0)
    monkeypatch.setattr(attention, "CHUNK", 15 * KEYS)


def drawn(dtype: torch.dtype, kv_heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, ROWS, 4, 16), (3, KEYS, kv_heads, 16), (3, KEYS, kv_heads, 16))
    q, k, v = (torch.randn(s, generator=generator).to(dtype).transpose(1, 2) for s in shapes)
    return q, k, v


def seen(kind: str) -> Tensor | None:
    generator = torch.Generator().manual_seed(1)
    shapes = {"keys": (3, 1, 1, KEYS), "rows": (3, 1, ROWS, KEYS), "shared": (ROWS, KEYS)}
    if kind == "all":
        return None
    mask = torch.rand(shapes[kind], generator=generator) < 0.5
    mask[..., 0] = True
    return mask


def exact(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    wide = (x.double() for x in (q, k, v))
    return F.scaled_dot_product_attention(*wide, attn_mask=mask, scale=0.3, enable_gqa=True)


@pytest.mark.usefixtures("in_chunks")
@pytest.mark.parametrize("kind", ["all", "keys", "rows", "shared"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_attention_is_torchs_own(
    kind: str, kv_heads: int, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v = drawn(dtype, kv_heads)
    with torch.inference_mode():
        found = attend(q, k, v, hiding(seen(kind), dtype), 0.3)
    assert found.dtype == dtype
    right = exact(q, k, v, seen(kind))
    torch.testing.assert_close(found.double(), right, atol=tolerance, rtol=tolerance)


@pytest.mark.usefixtures("in_chunks")
def test_bfloat16_is_nearer_than_torchs_own() -> None:
    q, k, v = (4 * x for x in drawn(torch.bfloat16, 4))

    def error(x: Tensor) -> float:
        return float((x.double() - exact(q, k, v)).square().mean())

    with torch.inference_mode():
        found = attend(q, k, v, None, 0.3)
    assert error(found) <= error(F.scaled_dot_product_attention(q, k, v, scale=0.3))


@pytest.mark.usefixtures("in_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sequence_does_not_depend_on_its_batch(dtype: torch.dtype) -> None:
    bias = hiding(seen("rows"), dtype)
    assert bias is not None
    with torch.inference_mode():
        together = attend(*drawn(dtype), bias, 0.3)
        for entry in range(3):
            q, k, v = (x[entry : entry + 1] for x in drawn(dtype))
            alone = attend(q, k, v, bias[entry : entry + 1], 0.3)
            assert torch.equal(alone[0], together[entry])


@pytest.mark.usefixtures("in_chunks")
def test_a_row_that_sees_nothing_stays_a_number() -> None:
    with torch.inference_mode():
        nothing = hiding(torch.zeros(ROWS, KEYS, dtype=torch.bool), torch.float32)
        found = attend(*drawn(torch.float32), nothing, 0.3)
    assert found.isfinite().all()


def test_few_scores_and_gradients_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def noted(q: Tensor, k: Tensor, v: Tensor, mask: None, scale: float) -> Tensor:
        calls.append(1)
        return q

    monkeypatch.setattr(attention, "_by_heads", noted)
    q, k, v = drawn(torch.float32)
    with torch.inference_mode():
        attend(q, k, v, None, 0.3)
        assert not calls
        monkeypatch.setattr(attention, "WORTH", 2 * ROWS * KEYS * 16)
        attend(q, k, v, None, 0.3)
        assert len(calls) == 1
    attend(q.requires_grad_(), k, v, None, 0.3).sum().backward()
    assert len(calls) == 1 and q.grad is not None


@pytest.mark.parametrize("kind", ["keys", "rows", "shared"])
@pytest.mark.parametrize("keys", [KEYS, KEYS - 3])
def test_a_bias_hides_as_its_mask_does(kind: str, keys: int) -> None:
    q, k, v = drawn(torch.float32)
    k, v, mask = k[:, :, :keys], v[:, :, :keys], seen(kind)
    assert mask is not None
    mask = mask[..., :keys]
    bias = hiding(mask, torch.float32)
    assert bias is not None and bias.shape == mask.shape
    assert all(stride % ALIGNED == 0 for stride in bias.stride()[:-1])
    right = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.3, enable_gqa=True)
    assert torch.equal(found, right)


@pytest.mark.parametrize("allowed", [True, False])
def test_cudnn_is_left_out_for_one_call(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(allowed)
    during: list[bool] = []

    def noted(q: Tensor, k: Tensor, v: Tensor, attn_mask: None, scale: float) -> Tensor:
        during.append(torch.backends.cuda.cudnn_sdp_enabled())
        return q

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    attention._without_cudnn(*drawn(torch.float32), None, 0.3)
    assert during == [False] and torch.backends.cuda.cudnn_sdp_enabled() == allowed
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.gpu
def test_cudnn_serves_many_scores_only(monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[bool] = []
    own = F.scaled_dot_product_attention

    def noted(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
        during.append(torch.backends.cuda.cudnn_sdp_enabled())
        return own(q, k, v, **rest)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    q, k, v = (x.cuda().bfloat16() for x in drawn(torch.float32))
    with torch.inference_mode():
        attend(q, k, v, None, 0.3)
        monkeypatch.setattr(attention, "CUDNN", ROWS * KEYS)
        attend(q, k, v, None, 0.3)
    assert during == [False, True]

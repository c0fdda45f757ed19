"""Grouped expert computation against one token at a time."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dllm.models.moe import Experts, has_kernel, one_kernel, one_product_each
from dllm.models.spec import MoeSpec


SOFTMAX = MoeSpec(n_experts=8, top_k=3, d_expert=12, router="softmax")
RENORMALISED = MoeSpec(n_experts=8, top_k=3, d_expert=12, router="softmax", renormalise=True)
GROUPED = MoeSpec(
    n_experts=8,
    top_k=3,
    d_expert=12,
    router="sigmoid_group",
    d_shared=12,
    renormalise=True,
    n_groups=4,
    kept_groups=2,
    scale=2.5,
    expert_bias=True,
    accumulate_fp32=True,
)


def experts(spec: MoeSpec, dtype: torch.dtype = torch.float32) -> Experts:
    torch.manual_seed(0)
    module = Experts(16, spec)
    if spec.expert_bias:
        module.expert_bias.copy_(torch.randn(spec.n_experts) * 0.2)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module.requires_grad_(False)


def one_by_one(module: Experts, x: Tensor) -> Tensor:
    """The reference blocks' arithmetic, token by token."""
    spec, rows = module.spec, []
    for token in x.flatten(0, -2):
        chosen, weights = (a[0] for a in module.route(token[None]))
        if not spec.accumulate_fp32:
            chosen, order = chosen.sort()
            weights = weights[order].to(x.dtype)
        y = torch.zeros(len(token), dtype=torch.float32 if spec.accumulate_fp32 else x.dtype)
        for expert, weight in zip(chosen, weights, strict=True):
            gate, up = (module.gate_up[expert] @ token).chunk(2)
            out = module.down[expert] @ (F.silu(gate) * up)
            y = y + out.to(y.dtype) * weight
        rows.append(
            y.to(x.dtype) if module.shared is None else y.to(x.dtype) + module.shared(token)
        )
    return torch.stack(rows).view(x.shape)


@pytest.mark.parametrize("spec", [SOFTMAX, RENORMALISED, GROUPED])
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (1, 64)])
def test_equals_one_token_at_a_time(spec: MoeSpec, shape: tuple[int, int]) -> None:
    module = experts(spec)
    x = torch.randn(*shape, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x), one_by_one(module, x), atol=1e-5, rtol=1e-5)


def test_no_tokens() -> None:
    assert experts(SOFTMAX)(torch.empty(1, 0, 16)).shape == (1, 0, 16)


def test_all_tokens_to_the_same_experts() -> None:
    module = experts(SOFTMAX)
    x = torch.randn(16, generator=torch.Generator().manual_seed(1)).expand(1, 9, 16)
    torch.testing.assert_close(module(x), module(x[:, :1]).expand(1, 9, 16))


def test_bias_moves_the_choice_not_the_weight() -> None:
    module = experts(GROUPED)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    scores = F.linear(x, module.router).sigmoid()
    chosen, weights = module.route(x)
    raw = scores.gather(-1, chosen)
    torch.testing.assert_close(weights, 2.5 * raw / raw.sum(-1, keepdim=True))
    module.expert_bias[5] = 100.0
    assert (module.route(x)[0] == 5).any(dim=-1).all()


def test_router_runs_in_float32() -> None:
    """In bfloat16 many sigmoid scores coincide; the released router upcasts both operands."""
    module = experts(GROUPED, torch.bfloat16)
    assert module.expert_bias.dtype == torch.float32
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    wide = experts(GROUPED)
    wide.router.data = module.router.float()
    for found, expected in zip(module.route(x), wide.route(x.float()), strict=True):
        assert torch.equal(found, expected)


def test_sum_in_float32_is_rounded_once() -> None:
    module = experts(GROUPED, torch.bfloat16)
    x = torch.randn(1, 32, 16, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    flat = x[0]
    chosen, weights = module.route(flat)
    outputs = module.compute(flat, chosen)
    exact = (outputs.double() * weights[..., None].double()).sum(dim=1)
    assert module.shared is not None
    expected = exact.to(torch.bfloat16) + module.shared(flat)
    assert (module(x)[0] == expected).float().mean() > 0.99  # halves may round the other way


def test_gradients_reach_every_part() -> None:
    module = experts(RENORMALISED).requires_grad_(True)
    module(torch.randn(1, 40, 16, generator=torch.Generator().manual_seed(1))).sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="torch < 2.10 has no grouped product")
def test_one_kernel_equals_one_product_each() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(torch.bfloat16)

    counts = torch.tensor([3, 0, 5, 2, 0])
    arguments = drawn(10, 16), counts, drawn(5, 48, 16), drawn(5, 16, 24), "silu"
    torch.testing.assert_close(one_kernel(*arguments), one_product_each(*arguments))
    assert not has_kernel(arguments[0], SOFTMAX)  # not on a GPU


@pytest.mark.gpu
def test_the_kernel_on_a_gpu() -> None:
    module = experts(replace(GROUPED, d_expert=16, d_shared=16), torch.bfloat16)
    x = torch.randn(1, 64, 16, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    expected = module(x)
    torch.testing.assert_close(module.cuda()(x.cuda()).cpu(), expected, atol=3e-2, rtol=3e-2)

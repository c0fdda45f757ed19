"""Pieces of a model that can be checked by hand."""

import numpy as np
import torch
from tiny_checkpoints import tiny_model

from dllm.forward.predictor import Predictor
from dllm.models.masks import (
    attention_mask,
    block_causal,
    causal,
)
from dllm.models.moe import sigmoid_group_router, softmax_router
from dllm.models.spec import ModelSpec, MoeSpec
from dllm.models.transformer import RMSNorm, rotary_tables, rotate
from dllm.step.plan import ForwardKind, Plan


def spec(**changes) -> ModelSpec:
    fields = {
        "family": "llada",
        "vocab_size": 8,
        "d_model": 4,
        "n_layers": 1,
        "n_heads": 1,
        "n_kv_heads": 1,
        "head_dim": 4,
        "d_ff": 4,
        "norm_eps": 1e-5,
        "rope_theta": 5e5,
        "max_positions": 64,
        "mask_id": 1,
        "eos_ids": (2,),
        "pad_id": 0,
    }
    return ModelSpec(**{**fields, **changes})


def close(found: torch.Tensor, expected: list) -> None:
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=found.dtype), atol=1e-6, rtol=1e-6
    )


def test_rms_norm() -> None:
    norm = RMSNorm(4, spec())
    norm.weight.data = torch.tensor([1.0, 0.5, 2.0, 1.0])
    close(norm(torch.arange(1.0, 5.0)), [0.365148, 0.365148, 2.190889, 1.460593])


def test_norm_weight_is_applied_after_the_cast_unless_asked() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(512, dtype=torch.bfloat16), torch.randn(512, dtype=torch.bfloat16)
    early, late = RMSNorm(512, spec(norm_weight_fp32=True)), RMSNorm(512, spec())
    early.weight.data = late.weight.data = weight
    differing = (early(x) != late(x)).float().mean()
    assert 0.1 < differing < 0.4  # about a quarter differ by one unit in the last place


def test_rotary_half_split() -> None:
    x = torch.arange(1.0, 5.0).expand(1, 1, 2, 4)
    tables = rotary_tables(torch.tensor([[1, 3]]), spec())
    for fp32 in (False, True):
        turned = rotate(x, *tables, fp32=fp32)[0, 0]
        close(turned[0], [-1.984111, 1.994341, 2.462378, 4.002824])
        close(turned[1], [-1.413352, 1.983011, -2.828857, 4.008449])


def test_rotary_partial() -> None:
    x = torch.arange(1.0, 9.0).expand(1, 1, 1, 8)
    tables = rotary_tables(torch.tensor([[2]]), spec(head_dim=8, rope_dim=4, rope_theta=6e5))
    turned = rotate(x, *tables, fp32=False)[0, 0, 0]
    close(turned, [-3.144039, 1.989665, -0.339143, 4.005151, 5, 6, 7, 8])


def test_block_causal_with_a_partial_last_block() -> None:
    slots = torch.arange(7)
    mask = block_causal(slots, slots, 4)
    assert mask[:4].tolist() == [[True] * 4 + [False] * 3] * 4
    assert mask[4:].all()


def test_masks_of_the_families() -> None:
    slots = torch.arange(5)
    assert attention_mask(spec(), slots, slots) is None
    blocks = attention_mask(spec(attention="block_causal", block_size=2), slots, slots)
    assert blocks is not None and blocks.sum(dim=1).tolist() == [2, 2, 4, 4, 5]
    rows = attention_mask(spec(attention="causal"), slots[3:], slots)
    assert rows is not None and torch.equal(rows, causal(slots[3:], slots))


def test_softmax_router_does_not_renormalise() -> None:
    moe = MoeSpec(n_experts=4, top_k=2, d_expert=1, router="softmax")
    experts, weights = softmax_router(torch.tensor([[2, 0.5, 1, -1]]), moe)
    assert experts.tolist() == [[0, 2]]
    close(weights[0], [0.609460, 0.224208])


def test_grouped_sigmoid_router_drops_the_best_expert() -> None:
    moe = MoeSpec(
        n_experts=8,
        top_k=2,
        d_expert=1,
        router="sigmoid_group",
        renormalise=True,
        n_groups=4,
        kept_groups=2,
        scale=2.5,
        expert_bias=True,
    )
    logits = torch.tensor([[1, -2, 0.5, 0.4, 3, -3, 0.2, 0.1]])
    bias = torch.tensor([0, 0, 0, 0, 0, 0, 0.3, 0.3])
    experts, weights = sigmoid_group_router(logits, bias, moe)
    experts, order = experts.sort(dim=-1)
    assert experts.tolist() == [[6, 7]]
    close(weights.gather(-1, order)[0], [1.278906, 1.221094])


def test_shift_reads_the_row_before() -> None:
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    slots = torch.arange(5)[None]
    for family, rows in (("llada", [0, 1, 2, 3, 4]), ("dream", [0, 0, 1, 2, 3])):
        model = tiny_model(family)
        plan = Plan(ForwardKind.STEP, tokens, slots, slots, np.array([5]), False, logits_for=slots)
        prediction = Predictor(model).predict(plan, None)
        assert prediction is not None
        raw = model.logits(model.hidden(tokens))
        torch.testing.assert_close(prediction.logits, raw[:, rows], atol=1e-5, rtol=1e-5)

"""Second opinions: transformers' own Llama, Qwen2, Qwen3 and Qwen3-MoE on random tiny configs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from tiny_checkpoints import tiny_model

from dllm.models.masks import attention_mask
from dllm.models.transformer import Transformer


# family, class, config.json changes, what the class needs besides
CASES = {
    "llada": ("Llama", {}, {}),
    "llada multi-head": ("Llama", {"n_kv_heads": 4}, {}),
    "dream": ("Qwen2", {}, {}),
    "sdar": ("Qwen3", {}, {}),
    "sdar wide heads": ("Qwen3", {"head_dim": 32, "block_size": 8}, {}),
    "fast_dllm_v2": ("Qwen2", {}, {}),
    "fast_dllm_v2 untied": ("Qwen2", {"tie_word_embeddings": False}, {}),
    "wedlm": ("Qwen2", {}, {}),
    "wedlm qwen3": ("Qwen3", {"attention_bias": False, "qk_norm": True, "head_dim": 16}, {}),
    "autoregressive": ("Qwen3", {}, {}),
    "llama": ("Llama", {}, {}),
    "llada_moe": ("Qwen3Moe", {}, {"norm_topk_prob": False, "mlp_only_layers": [0]}),
    "sdar_moe": ("Qwen3Moe", {}, {"norm_topk_prob": True, "mlp_only_layers": [0]}),
}


def oracle(model: Transformer, kind: str, extra: dict[str, Any]) -> torch.nn.Module:
    """The stock class of the same shape with the model's weights."""
    spec = model.spec
    config = {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.d_model,
        "intermediate_size": spec.d_ff,
        "num_hidden_layers": spec.n_layers,
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "head_dim": spec.head_dim,
        "rms_norm_eps": spec.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
        "max_position_embeddings": spec.max_positions,
        "tie_word_embeddings": spec.tied_embeddings,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        **extra,
    }
    if spec.moe is not None:
        config |= {
            "num_experts": spec.moe.n_experts,
            "num_experts_per_tok": spec.moe.top_k,
            "moe_intermediate_size": spec.moe.d_expert,
        }
    built = getattr(transformers, f"{kind}Config")(**config, attn_implementation="sdpa")
    stock = getattr(transformers, f"{kind}ForCausalLM")(built).eval()
    state = {
        theirs: tensor for ours, tensor in model.state_dict().items() for theirs in [rename(ours)]
    }
    missing, unexpected = stock.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if spec.tied_embeddings else set())
    stock.tie_weights()
    return stock


def bfloat16(stock: torch.nn.Module) -> torch.nn.Module:
    """Casts the weights; `.to(dtype)` alone would round the rotary frequencies as well."""
    frequencies = stock.model.rotary_emb.inv_freq.clone()
    stock.to(torch.bfloat16)
    stock.model.rotary_emb.inv_freq = frequencies
    return stock


def rename(name: str) -> str:
    """Our parameter names -> those of the stock classes."""
    for ours, theirs in (
        ("embed.", "model.embed_tokens."),
        ("head.", "lm_head."),
        ("norm.weight", "model.norm.weight"),
    ):
        if name.startswith(ours):
            return name.replace(ours, theirs, 1)
    name = name.replace("attn_norm", "input_layernorm").replace(
        "mlp_norm", "post_attention_layernorm"
    )
    for leaf in "qkvo":
        name = name.replace(f".attn.{leaf}.", f".self_attn.{leaf}_proj.")
        name = name.replace(f".attn.{leaf}_norm.", f".self_attn.{leaf}_norm.")
    for leaf in ("gate", "up", "down"):
        name = name.replace(f".mlp.{leaf}.weight", f".mlp.{leaf}_proj.weight")
    name = name.replace(".mlp.router", ".mlp.gate.weight")
    name = name.replace(".mlp.gate_up", ".mlp.experts.gate_up_proj")
    if name.endswith(".mlp.down"):
        name = name.replace(".mlp.down", ".mlp.experts.down_proj")
    return f"model.{name}"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_logits(case: str, seed: int) -> None:
    kind, changes, extra = CASES[case]
    model = tiny_model(case.split()[0], seed, **changes)
    torch.manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if "norm" in name or "bias" in name:
            tensor.add_(torch.randn_like(tensor) * 0.1)
    length = 19
    tokens = torch.randint(0, model.spec.vocab_size, (2, length))
    slots = torch.arange(length)
    mask = attention_mask(model.spec, slots, slots)
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool)
    expected = oracle(model, kind, extra)(
        input_ids=tokens, attention_mask=mask.expand(2, 1, -1, -1), use_cache=False
    ).logits
    found = model.logits(model.hidden(tokens, mask=mask))
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_bfloat16_rounds_like_the_stock_class() -> None:
    """Cast before the norm weight, rotation in the model dtype: not one bit apart."""
    model = tiny_model("sdar").to(torch.bfloat16)
    tokens = torch.randint(0, 97, (1, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    stock = bfloat16(oracle(model, "Qwen3", {}))
    expected = stock(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    found = model.logits(model.hidden(tokens, mask=mask))
    assert torch.equal(found, expected)


def test_llada_differs_from_llama_by_its_float32_rotary_only() -> None:
    model = tiny_model("llada").to(torch.bfloat16)
    tokens = torch.randint(0, 97, (1, 64), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    stock = bfloat16(oracle(model, "Llama", {}))
    expected = stock(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    assert not torch.equal(model.logits(model.hidden(tokens, mask=mask)), expected)
    rounded = Transformer(replace(model.spec, rope_fp32=False)).to(torch.bfloat16).eval()
    rounded.load_state_dict(model.state_dict())
    assert torch.equal(rounded.logits(rounded.hidden(tokens, mask=mask)), expected)

"""LLaDA2.0 and LLaDA2.1 (mini, flash): block-causal mixture of experts with grouped sigmoid
routing.

Format of inclusionAI/LLaDA2.*. Query, key and value projections are one tensor with all query heads
first, then all key heads, then all value heads. Block length and mask id are no config keys: 32 and
156895 by default. `sliding_window` holds a number that the official network never uses.
"""

from typing import Any

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import qwen_layout
from dllm.models.family import Family
from dllm.models.spec import ModelSpec, MoeSpec
from dllm.models.weights import Rows, WeightMap, Whole


MASK_ID = 156895
BLOCK_SIZE = 32
_SWITCHES = {
    "score_function": "sigmoid",
    "norm_topk_prob": True,
    "moe_router_enable_expert_bias": True,
    "router_dtype": "fp32",
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "use_rmsnorm": True,
    "norm_head": False,
    "using_split_qkv_in_self_attention": False,
}


def read(config: CheckpointConfig) -> ModelSpec:
    config.expect("llada2", _SWITCHES)
    # The class default of a missing key would be a network with biases.
    if config["use_bias"]:
        raise ConfigError(f"{config.source}: use_bias=True, llada2 needs False")
    fields = qwen_layout.body(config, "llada2")
    eos_ids = config.eos_ids(fields["vocab_size"])
    d_expert = config.count("moe_intermediate_size")
    rope_dim = int(fields["head_dim"] * config.get("partial_rotary_factor", 1.0))
    if config.get("rotary_dim", rope_dim) != rope_dim:
        raise ConfigError(
            f"{config.source}: rotary_dim={config['rotary_dim']} contradicts "
            f"partial_rotary_factor={config['partial_rotary_factor']}"
        )
    return ModelSpec(
        family="llada2",
        **fields,
        d_ff=config.count("intermediate_size"),
        mask_id=config.mask_id(MASK_ID, fields["vocab_size"]),
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        rope_dim=rope_dim,
        qk_norm=True,
        attention="block_causal",
        block_size=config.block_size("block_size", BLOCK_SIZE),
        logits_fp32=True,
        moe=MoeSpec(
            n_experts=config.count("num_experts"),
            top_k=config.count("num_experts_per_tok"),
            d_expert=d_expert,
            router="sigmoid_group",
            d_shared=d_expert * config.get("num_shared_experts", 0),
            dense_layers=frozenset(range(config.get("first_k_dense_replace", 0))),
            renormalise=True,
            n_groups=config.count("n_group"),
            kept_groups=config.count("topk_group"),
            scale=config.number("routed_scaling_factor"),
            expert_bias=True,
            accumulate_fp32=True,
        ),
    )


def write(spec: ModelSpec) -> dict[str, Any]:
    moe = spec.moe
    assert moe is not None
    return {
        "architectures": ["LLaDA2MoeModelLM"],
        "model_type": "llada2_moe",
        **_SWITCHES,
        "use_bias": False,
        **qwen_layout.body_keys(spec),
        "partial_rotary_factor": spec.rotary_dim / spec.head_dim,
        "rotary_dim": spec.rotary_dim,
        "block_size": spec.block_size,
        "num_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
        "moe_intermediate_size": moe.d_expert,
        "num_shared_experts": moe.d_shared // moe.d_expert,
        "first_k_dense_replace": len(moe.dense_layers),
        "n_group": moe.n_groups,
        "topk_group": moe.kept_groups,
        "routed_scaling_factor": moe.scale,
    }


def weights(spec: ModelSpec) -> WeightMap:
    found = qwen_layout.ends(spec, embed="model.word_embeddings")
    width, kv_width = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    for i in range(spec.n_layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        fused = f"{theirs}.attention.query_key_value.weight"
        found |= {
            f"{ours}.attn_norm.weight": Whole(f"{theirs}.input_layernorm.weight"),
            f"{ours}.mlp_norm.weight": Whole(f"{theirs}.post_attention_layernorm.weight"),
            f"{ours}.attn.q.weight": Rows(fused, 0, width),
            f"{ours}.attn.k.weight": Rows(fused, width, width + kv_width),
            f"{ours}.attn.v.weight": Rows(fused, width + kv_width, width + 2 * kv_width),
            f"{ours}.attn.o.weight": Whole(f"{theirs}.attention.dense.weight"),
            f"{ours}.attn.q_norm.weight": Whole(f"{theirs}.attention.query_layernorm.weight"),
            f"{ours}.attn.k_norm.weight": Whole(f"{theirs}.attention.key_layernorm.weight"),
        }
        found |= qwen_layout.feed_forward(spec, i)
    return found


FAMILY = Family(
    name="llada2",
    architectures=("LLaDA2MoeModelLM",),
    model_types=("llada2_moe",),
    marks=("model.word_embeddings.weight", "model.layers.0.attention.query_key_value.weight"),
    read=read,
    write=write,
    weights=weights,
    chat="role",
)

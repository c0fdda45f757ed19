"""SDAR, TraDo, TDAR and SDAR-MoE: Qwen3 bodies with block-causal attention and aligned logits.

Format of JetLM/SDAR-*, Gen-Verse/TraDo-*, lulululuyi/TDAR-*. Some copies of config.json lack
`block_size` and `mask_token_id`: 4 and 151669 by default; TDAR decodes with 16 although its file
may say 4.
"""

from typing import Any

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import qwen_layout
from dllm.models.family import Family
from dllm.models.spec import ModelSpec, MoeSpec


MASK_ID = 151669
BLOCK_SIZE = 4
IM_END = 151645


def read(config: CheckpointConfig) -> ModelSpec:
    return _read(config, "sdar", moe=None)


def read_moe(config: CheckpointConfig) -> ModelSpec:
    """Experts as in Qwen3-MoE, with the chosen probabilities renormalised [inferred]."""
    if config.get("decoder_sparse_step", 1) != 1:
        raise ConfigError(
            f"{config.source}: decoder_sparse_step={config['decoder_sparse_step']}, "
            "sdar_moe needs 1"
        )
    moe = MoeSpec(
        n_experts=config.count("num_experts"),
        top_k=config.count("num_experts_per_tok"),
        d_expert=config.count("moe_intermediate_size"),
        router="softmax",
        dense_layers=frozenset(config.get("mlp_only_layers", [])),
        renormalise=config.flag("norm_topk_prob", False),
    )
    return _read(config, "sdar_moe", moe)


def _read(config: CheckpointConfig, family: str, moe: MoeSpec | None) -> ModelSpec:
    config.expect(family, {"attention_bias": False})
    fields = qwen_layout.body(config, family)
    eos_ids = config.eos_ids(fields["vocab_size"], stops=(IM_END,))
    return ModelSpec(
        family=family,
        **fields,
        d_ff=config.count("intermediate_size"),
        mask_id=config.mask_id(MASK_ID, fields["vocab_size"]),
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        qk_norm=True,
        attention="block_causal",
        block_size=config.block_size("block_size", BLOCK_SIZE),
        moe=moe,
    )


def write(spec: ModelSpec) -> dict[str, Any]:
    keys = {
        **qwen_layout.body_keys(spec),
        "attention_bias": False,
        "block_size": spec.block_size,
    }
    if spec.moe is None:
        return {"architectures": ["SDARForCausalLM"], "model_type": "sdar", **keys}
    return {
        "architectures": ["SDARMoeForCausalLM"],
        "model_type": "sdar_moe",
        **keys,
        "num_experts": spec.moe.n_experts,
        "num_experts_per_tok": spec.moe.top_k,
        "moe_intermediate_size": spec.moe.d_expert,
        "mlp_only_layers": sorted(spec.moe.dense_layers),
        "norm_topk_prob": spec.moe.renormalise,
    }


FAMILY = Family(
    name="sdar",
    architectures=("SDARForCausalLM",),
    model_types=("sdar",),
    marks=("model.embed_tokens.weight", "model.layers.0.self_attn.q_norm.weight"),
    read=read,
    write=write,
    weights=qwen_layout.weights,
    chat="qwen3",
)
MOE_FAMILY = Family(
    name="sdar_moe",
    architectures=("SDARMoeForCausalLM",),
    model_types=("sdar_moe",),
    marks=("model.embed_tokens.weight", "model.layers.0.self_attn.q_norm.weight"),
    read=read_moe,
    write=write,
    weights=qwen_layout.weights,
    chat="qwen3",
)

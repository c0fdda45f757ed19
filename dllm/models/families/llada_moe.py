"""LLaDA-MoE-7B-A1B: full attention, softmax router whose probabilities are not renormalised.

Format of inclusionAI/LLaDA-MoE-7B-A1B-*. Its `model_type` is "llada", as LLaDA-8B's. The official
block ignores `norm_topk_prob` and the group keys, so they are ignored here too.
"""

from typing import Any

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import qwen_layout
from dllm.models.family import Family
from dllm.models.spec import ModelSpec, MoeSpec


MASK_ID = 156895
_SWITCHES = {
    "attention_bias": False,
    "qk_layernorm": True,
    "partial_rotary_factor": 1,
    "clip_qkv": None,
    "shared_expert_intermediate_size": None,
    # With a bias the official block would use the biased score as the weight: never released.
    "moe_router_enable_expert_bias": False,
    "moe_router_score_function": "softmax",
}


def read(config: CheckpointConfig) -> ModelSpec:
    config.expect("llada_moe", _SWITCHES)
    fields = qwen_layout.body(config, "llada_moe")
    eos_ids = config.eos_ids(fields["vocab_size"])
    layers = range(fields["n_layers"])
    moe_layers = config.get("moe_layer_freq", [1 for _ in layers])
    if len(moe_layers) != len(layers):
        raise ConfigError(
            f"{config.source}: moe_layer_freq has {len(moe_layers)} entries for "
            f"{len(layers)} layers"
        )
    return ModelSpec(
        family="llada_moe",
        **fields,
        d_ff=config.count("dense_intermediate_size"),
        mask_id=config.mask_id(MASK_ID, fields["vocab_size"]),
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        qk_norm=True,
        moe=MoeSpec(
            n_experts=config.count("num_experts"),
            top_k=config.count("num_experts_per_tok"),
            d_expert=config.count("expert_intermediate_size"),
            router="softmax",
            dense_layers=frozenset(i for i in layers if moe_layers[i] == 0),
        ),
    )


def write(spec: ModelSpec) -> dict[str, Any]:
    assert spec.moe is not None
    layers = range(spec.n_layers)
    return {
        "architectures": ["LLaDAMoEModelLM"],
        "model_type": "llada",
        **_SWITCHES,
        **qwen_layout.body_keys(spec),
        "dense_intermediate_size": spec.d_ff,
        "num_experts": spec.moe.n_experts,
        "num_experts_per_tok": spec.moe.top_k,
        "expert_intermediate_size": spec.moe.d_expert,
        "moe_layer_freq": [int(spec.is_moe(i)) for i in layers],
    }


FAMILY = Family(
    name="llada_moe",
    architectures=("LLaDAMoEModelLM",),
    model_types=("llada",),
    marks=("model.embed_tokens.weight", "model.layers.0.self_attn.q_norm.weight"),
    read=read,
    write=write,
    weights=qwen_layout.weights,
    chat="role",
)

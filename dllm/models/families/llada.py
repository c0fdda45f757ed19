"""LLaDA-8B-Base, LLaDA-8B-Instruct and LLaDA-1.5: full attention, float32 rotary, aligned logits.

Format of GSAI-ML/LLaDA-8B-* (an OLMo-derived class that could express other networks: every switch that
would change the network is checked). Trap of the format: the LM head and each block's down projection
share the leaf name `ff_out`, and `ff_proj` is the gate.
"""

from collections.abc import Mapping
from typing import Any

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec


ARCHITECTURES = ("LLaDAModelLM",)

_REQUIRED = {
    "block_type": "llama",
    "block_group_size": 1,
    "layer_norm_type": "rms",
    "activation_type": "silu",
    "rope": True,
    "rope_full_precision": True,
    "alibi": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "attention_layer_norm": False,
    "bias_for_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
}


def spec(config: Mapping[str, Any]) -> ModelSpec:
    for key, value in _REQUIRED.items():
        if config.get(key, value) != value:
            raise ConfigError(f"config.json: {key}={config[key]!r}, LLaDA needs {value!r}")
    heads = config["n_heads"]
    eos = config["eos_token_id"]
    return ModelSpec(
        family="llada",
        vocab_size=config.get("embedding_size") or config["vocab_size"],
        d_model=config["d_model"],
        n_layers=config["n_layers"],
        n_heads=heads,
        n_kv_heads=config.get("n_kv_heads") or heads,
        head_dim=config["d_model"] // heads,
        d_ff=config.get("mlp_hidden_size") or config["mlp_ratio"] * config["d_model"],
        norm_eps=config["rms_norm_eps"],
        rope_theta=config["rope_theta"],
        max_positions=config["max_sequence_length"],
        mask_id=config["mask_token_id"],
        eos_ids=(eos,),
        pad_id=config.get("pad_token_id", eos),
        rope_fp32=True,
        tied_embeddings=config.get("weight_tying", False),
    )


def config(spec: ModelSpec) -> dict[str, Any]:
    """The config.json of a checkpoint of this family."""
    return {
        "architectures": list(ARCHITECTURES),
        "model_type": "llada",
        **_REQUIRED,
        "d_model": spec.d_model,
        "n_layers": spec.n_layers,
        "n_heads": spec.n_heads,
        "n_kv_heads": spec.n_kv_heads,
        "mlp_hidden_size": spec.d_ff,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.rope_theta,
        "max_sequence_length": spec.max_positions,
        "vocab_size": spec.vocab_size,
        "embedding_size": spec.vocab_size,
        "weight_tying": spec.tied_embeddings,
        "mask_token_id": spec.mask_id,
        "eos_token_id": spec.eos_ids[0],
        "pad_token_id": spec.pad_id,
    }


def names(spec: ModelSpec) -> dict[str, str]:
    """Parameter of our transformer -> tensor of the checkpoint."""
    root = "model.transformer"
    found = {"embed.weight": f"{root}.wte.weight", "norm.weight": f"{root}.ln_f.weight"}
    if not spec.tied_embeddings:
        found["head.weight"] = f"{root}.ff_out.weight"
    leaves = {
        "attn_norm": "attn_norm",
        "attn.q": "q_proj",
        "attn.k": "k_proj",
        "attn.v": "v_proj",
        "attn.o": "attn_out",
        "mlp_norm": "ff_norm",
        "mlp.gate": "ff_proj",
        "mlp.up": "up_proj",
        "mlp.down": "ff_out",
    }
    for i in range(spec.n_layers):
        for ours, theirs in leaves.items():
            found[f"layers.{i}.{ours}.weight"] = f"{root}.blocks.{i}.{theirs}.weight"
    return found

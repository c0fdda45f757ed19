"""LLaDA-8B-Base, LLaDA-8B-Instruct and LLaDA-1.5: full attention, float32 rotary, aligned logits.

Format of GSAI-ML/LLaDA-8B-* (an OLMo-derived class that could express other networks: every switch
that would change the network is checked). Trap of the format: the LM head and each block's down
projection share the leaf name `ff_out`, and `ff_proj` is the gate.
"""

from typing import Any

from dllm.models.config_reader import CheckpointConfig
from dllm.models.family import Family
from dllm.models.spec import ModelSpec
from dllm.models.weights import WeightMap, Whole


MASK_ID = 126336
EOT = 126348
"""`<|eot_id|>`: chats end with it, the rest of the canvas is filled with the end-of-text id."""

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


def read(config: CheckpointConfig) -> ModelSpec:
    config.expect("llada", _REQUIRED)
    heads = config.count("n_heads")
    width = config.count("d_model")
    vocab_size = config.count("embedding_size", config.count("vocab_size"))
    eos_ids = config.eos_ids(vocab_size, stops=(EOT,))
    return ModelSpec(
        family="llada",
        vocab_size=vocab_size,
        d_model=width,
        n_layers=config.count("n_layers"),
        n_heads=heads,
        n_kv_heads=config.count("n_kv_heads", heads),
        head_dim=config.head_dim(width, heads),
        d_ff=config.get("mlp_hidden_size") or config.count("mlp_ratio") * width,
        norm_eps=config.number("rms_norm_eps"),
        rope_theta=config.rope_theta(),
        max_positions=config.count("max_sequence_length"),
        mask_id=config.mask_id(MASK_ID, vocab_size),
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        rope_fp32=True,
        tied_embeddings=config.flag("weight_tying", False),
    )


def write(spec: ModelSpec) -> dict[str, Any]:
    return {
        "architectures": ["LLaDAModelLM"],
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
        "eos_token_id": spec.eos_ids[0] if len(spec.eos_ids) == 1 else list(spec.eos_ids),
        "pad_token_id": spec.pad_id,
    }


def weights(spec: ModelSpec) -> WeightMap:
    root = "model.transformer"
    found: WeightMap = {
        "embed.weight": Whole(f"{root}.wte.weight"),
        "norm.weight": Whole(f"{root}.ln_f.weight"),
    }
    if not spec.tied_embeddings:
        found["head.weight"] = Whole(f"{root}.ff_out.weight")
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
            found[f"layers.{i}.{ours}.weight"] = Whole(f"{root}.blocks.{i}.{theirs}.weight")
    return found


FAMILY = Family(
    name="llada",
    architectures=("LLaDAModelLM",),
    model_types=("llada",),
    marks=("model.transformer.wte.weight",),
    read=read,
    write=write,
    weights=weights,
    chat="llama3",
)

"""Tiny checkpoints of every family: config.json values, random weights, folders in the public
layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dllm.models.loading import dummy_model, save_model, spec_from_config
from dllm.models.transformer import Transformer


_QWEN = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 128,
    "eos_token_id": 90,
    "pad_token_id": 91,
    "mask_token_id": 95,
}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llada": {
        "architectures": ["LLaDAModelLM"],
        "d_model": 48,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "mlp_hidden_size": 64,
        "vocab_size": 97,
        "embedding_size": 97,
        "max_sequence_length": 128,
        "rope_theta": 5e5,
        "rms_norm_eps": 1e-5,
        "eos_token_id": 90,
        "pad_token_id": 91,
        "mask_token_id": 95,
    },
    "llada_moe": {
        **_QWEN,
        "architectures": ["LLaDAMoEModelLM"],
        "num_key_value_heads": 4,
        "dense_intermediate_size": 64,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "expert_intermediate_size": 16,
        "moe_layer_freq": [0, 1],
    },
    "llada2": {
        **_QWEN,
        "architectures": ["LLaDA2MoeModelLM"],
        "head_dim": 16,
        "use_bias": False,
        "partial_rotary_factor": 0.5,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 16,
        "num_shared_experts": 2,
        "first_k_dense_replace": 1,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
    },
    "dream": {**_QWEN, "architectures": ["DreamModel"]},
    "sdar": {**_QWEN, "architectures": ["SDARForCausalLM"], "head_dim": 16, "block_size": 4},
    "sdar_moe": {
        **_QWEN,
        "architectures": ["SDARMoeForCausalLM"],
        "head_dim": 16,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 16,
        "norm_topk_prob": True,
        "mlp_only_layers": [0],
    },
    "fast_dllm_v2": {
        **_QWEN,
        "architectures": ["Fast_dLLM_QwenForCausalLM"],
        "bd_size": 8,
        "tie_word_embeddings": True,
    },
    "wedlm": {**_QWEN, "architectures": ["WeDLMForCausalLM"], "attention_bias": True},
    "autoregressive": {**_QWEN, "architectures": ["Qwen3ForCausalLM"], "head_dim": 16},
    "diffusion_gemma": {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "canvas_length": 8,
        "image_token_id": 96,
        "text_config": {
            "vocab_size": 97,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "global_head_dim": 16,
            "num_global_key_value_heads": 1,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 128,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 16,
            "eos_token_id": 90,
            "pad_token_id": 91,
        },
    },
    "llama": {**_QWEN, "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True},
}


def tiny_model(family: str, seed: int = 0, **changes: Any) -> Transformer:
    """A float32 model with random weights; `changes` are config.json keys."""
    config = {**CONFIGS[family], **changes}
    model = dummy_model(spec_from_config(config), seed=seed)
    for name, tensor in model.state_dict().items():
        if "norm" not in name:
            tensor.mul_(10)  # visible differences between logits
    return model


def write_checkpoint(folder: Path, family: str, **changes: Any) -> Transformer:
    model = tiny_model(family, **changes)
    save_model(model, folder)
    return model

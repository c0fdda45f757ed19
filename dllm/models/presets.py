"""config.json of the public architectures, for `scripts.inspect` and for timing without weights.

Values for which no authors' file was read carry a mark (docs/marks.md): [base model] is known of
the model that the weights were trained from. A real checkpoint is always read from its own file;
the parameter counts of the tests check these.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dllm.errors import ConfigError


_LLADA_8B = {
    "architectures": ["LLaDAModelLM"],
    "d_model": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 32,
    "mlp_hidden_size": 12288,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "max_sequence_length": 4096,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-05,
    "weight_tying": False,
    "mask_token_id": 126336,
    "eos_token_id": 126081,
    "pad_token_id": 126081,
}

_LLADA_MOE = {
    "architectures": ["LLaDAMoEModelLM"],
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "expert_intermediate_size": 1024,
    "dense_intermediate_size": 8192,
    "moe_layer_freq": [1] * 16,
    "rope_theta": 50000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-05,  # class default [C]
    "vocab_size": 157184,
    "eos_token_id": 156892,
    "pad_token_id": 156892,
}


def _llada2(**sizes: int) -> dict[str, Any]:
    return {
        "architectures": ["LLaDA2MoeModelLM"],
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "num_shared_experts": 1,
        "n_group": 8,
        "topk_group": 4,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
        "partial_rotary_factor": 0.5,
        "rope_theta": 600000,
        "rms_norm_eps": 1e-06,
        "use_bias": False,
        "vocab_size": 157184,
        "pad_token_id": 156892,
        "max_position_embeddings": 32768,
        **sizes,
    }


_QWEN25_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "eos_token_id": 151643,
    "pad_token_id": 151643,
}
_QWEN25_1_5B = {
    **_QWEN25_7B,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


def _qwen3(architecture: str, **sizes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "attention_bias": False,
        "head_dim": 128,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        "eos_token_id": 151643,
        "pad_token_id": 151643,
        **sizes,
    }


_SIZE_8B = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
}
_V2 = {"architectures": ["Fast_dLLM_QwenForCausalLM"], "bd_size": 32}
_V2_IDS = {"eos_token_id": 151645, "pad_token_id": 151645}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llada-8b": _LLADA_8B,
        "llada-moe-7b-a1b": _LLADA_MOE,
        "llada2-mini": _llada2(
            hidden_size=2048,
            intermediate_size=5120,
            moe_intermediate_size=512,
            num_hidden_layers=20,
            num_attention_heads=16,
        ),
        "llada2-flash": _llada2(
            hidden_size=4096,
            intermediate_size=9216,
            moe_intermediate_size=1024,
            num_hidden_layers=32,
            num_attention_heads=32,
        ),
        "dream-7b": {
            **_QWEN25_7B,
            "architectures": ["DreamModel"],
            "max_position_embeddings": 131072,
            "mask_token_id": 151666,
            "bos_token_id": 151643,
        },
        "sdar-1.7b": _qwen3(  # [base model]
            "SDARForCausalLM",
            hidden_size=2048,
            intermediate_size=6144,
            num_hidden_layers=28,
            num_attention_heads=16,
        ),
        "sdar-4b": _qwen3(
            "SDARForCausalLM",
            hidden_size=2560,
            intermediate_size=9728,
            num_hidden_layers=36,
            num_attention_heads=32,
        ),
        "sdar-8b": _qwen3("SDARForCausalLM", **_SIZE_8B),
        "sdar-30b-a3b": _qwen3(  # [base model]
            "SDARMoeForCausalLM",
            hidden_size=2048,
            intermediate_size=6144,
            num_hidden_layers=48,
            num_attention_heads=32,
            num_key_value_heads=4,
            num_experts=128,
            num_experts_per_tok=8,
            moe_intermediate_size=768,
            norm_topk_prob=True,
        ),
        "fast-dllm-v2-7b": {**_QWEN25_7B, **_V2, **_V2_IDS},
        "fast-dllm-v2-1.5b": {**_QWEN25_1_5B, **_V2, **_V2_IDS},  # [base model]
        "wedlm-7b": {**_QWEN25_7B, "architectures": ["WeDLMForCausalLM"], "attention_bias": True},
        "wedlm-8b": _qwen3("WeDLMForCausalLM", qk_norm=True, **_SIZE_8B),
        "diffusiongemma-26b-a4b": {  # [base model]
            "architectures": ["DiffusionGemmaForBlockDiffusion"],
            "canvas_length": 256,
            "image_token_id": 258880,
            "boi_token_id": 255999,
            "eoi_token_id": 258882,
            "text_config": {
                "vocab_size": 262144,
                "hidden_size": 2816,
                "intermediate_size": 2112,
                "num_hidden_layers": 30,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "head_dim": 256,
                "global_head_dim": 512,
                "num_global_key_value_heads": 2,
                "sliding_window": 1024,
                "num_experts": 128,
                "top_k_experts": 8,
                "moe_intermediate_size": 704,
                "rms_norm_eps": 1e-06,
                "max_position_embeddings": 262144,
                "eos_token_id": 1,
                "pad_token_id": 0,
                "bos_token_id": 2,
            },
        },
        "qwen2.5-1.5b": {**_QWEN25_1_5B, "architectures": ["Qwen2ForCausalLM"]},
    }
)


def preset_config(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise ConfigError(f"model.preset={name} is not one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])

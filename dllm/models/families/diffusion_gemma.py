"""DiffusionGemma: block diffusion from uniform noise on a Gemma 4 mixture of experts.

Format of google/diffusiongemma-26B-A4B-it as transformers writes it: the text model's keys in
`text_config`, its weights once, under `model.decoder`; of the causal reading ("encoder") the file
holds one factor per layer. The vision tower is not read: text only.
"""

from typing import Any

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig
from dllm.models.family import Family
from dllm.models.spec import NO_MASK, ModelSpec, MoeSpec, WindowSpec
from dllm.models.weights import WeightMap, Whole


BLOCK_SIZE, LOGIT_CAP, FULL_HEAD_DIM = 256, 30.0, 512
"""Class defaults of `canvas_length`, `final_logit_softcapping` and `global_head_dim`."""
_FULL, _SLIDING = "full_attention", "sliding_attention"
_ROPE = {
    _SLIDING: {"rope_type": "default", "rope_theta": 1e4},
    _FULL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
}
_IMAGE_KEYS = ("image_token_id", "boi_token_id", "eoi_token_id")
_SWITCHES = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "attention_k_eq_v": True,
}


def read(config: CheckpointConfig) -> ModelSpec:
    config.expect("diffusion_gemma", {"tie_word_embeddings": True})
    text = CheckpointConfig(
        config["text_config"],
        source=f"{config.source}: text_config",
        overrides=config.overrides,
        tensors=config.tensors,
    )
    text.expect("diffusion_gemma", _SWITCHES)
    if text.get("use_bidirectional_attention") == "all":
        raise ConfigError(
            f"{text.source}: use_bidirectional_attention='all', diffusion_gemma needs a causal "
            "reading of the prompt"
        )
    layers, vocab = text.count("num_hidden_layers"), text.count("vocab_size")
    eos_ids = text.eos_ids(vocab)
    if config.overrides.eos_ids is None and config.get("eos_token_id") is not None:
        # The ends of a turn, which generation_config.json lists.
        eos_ids = tuple(dict.fromkeys((*eos_ids, *config.eos_ids(vocab))))
    mask_id = config.overrides.mask_id
    return ModelSpec(
        family="diffusion_gemma",
        vocab_size=vocab,
        d_model=text.count("hidden_size"),
        n_layers=layers,
        n_heads=text.count("num_attention_heads"),
        n_kv_heads=text.count("num_key_value_heads"),
        head_dim=text.count("head_dim"),
        d_ff=text.count("intermediate_size"),
        norm_eps=text.number("rms_norm_eps"),
        rope_theta=_rope(text, _SLIDING)["rope_theta"],
        max_positions=text.count("max_position_embeddings"),
        mask_id=NO_MASK if mask_id is None else mask_id,
        eos_ids=eos_ids,
        pad_id=text.pad_id(eos_ids),
        bos_id=text.get("bos_token_id"),
        norm_weight_fp32=True,
        qk_norm=True,
        tied_embeddings=True,
        attention="causal_prefix",
        block_size=config.block_size("canvas_length", BLOCK_SIZE),
        logits_fp32=True,
        noise="uniform",
        windows=_windows(text, layers),
        logit_cap=text.get("final_logit_softcapping", LOGIT_CAP),
        image_ids=tuple(config.values[key] for key in _IMAGE_KEYS if config.get(key) is not None),
        moe=MoeSpec(
            n_experts=text.count("num_experts"),
            top_k=text.count("top_k_experts"),
            d_expert=text.count("moe_intermediate_size"),
            router="softmax",
            renormalise=True,
            activation="gelu_tanh",
        ),
    )


def _windows(text: CheckpointConfig, layers: int) -> WindowSpec:
    # Every sixth layer sees everything where the file does not say.
    kinds = text.get("layer_types", [_SLIDING if (i + 1) % 6 else _FULL for i in range(layers)])
    if len(kinds) != layers or not {_FULL, _SLIDING} >= set(kinds) or kinds[-1] != _FULL:
        raise ConfigError(
            f"{text.source}: layer_types must name {layers} layers of {_SLIDING} and {_FULL}, the "
            f"last one {_FULL}"
        )
    full = frozenset(i for i, kind in enumerate(kinds) if kind == _FULL)
    # transformers writes the heads of single layers, other files those of all full ones.
    own = [text.get("per_layer_config", {}).get(str(i), {}) for i in sorted(full)]
    if any(one != own[0] for one in own):
        raise ConfigError(f"{text.source}: per_layer_config: the full layers differ")
    head_dim = own[0].get("head_dim", text.get("global_head_dim", FULL_HEAD_DIM))
    kv_heads = text.get("num_global_key_value_heads", text.count("num_key_value_heads"))
    rope = _rope(text, _FULL)
    return WindowSpec(
        window=text.count("sliding_window"),
        full_layers=full,
        head_dim=head_dim,
        n_kv_heads=own[0].get("num_key_value_heads", kv_heads),
        rope_theta=rope["rope_theta"],
        rope_dim=2 * int(rope.get("partial_rotary_factor", 1.0) * head_dim // 2),
    )


def _rope(text: CheckpointConfig, kind: str) -> dict[str, Any]:
    found = text.get("rope_parameters", _ROPE)[kind]
    wanted = _ROPE[kind]["rope_type"]
    if found["rope_type"] != wanted or found.get("factor", 1.0) != 1.0:
        raise ConfigError(
            f"{text.source}: rope_parameters.{kind}={found}, diffusion_gemma needs type {wanted!r} "
            "without a factor"
        )
    return found


def write(spec: ModelSpec) -> dict[str, Any]:
    moe, two = spec.moe, spec.windows
    assert moe is not None and two is not None
    kinds = [_FULL if i in two.full_layers else _SLIDING for i in range(spec.n_layers)]
    share = two.rope_dim / two.head_dim
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": "diffusion_gemma",
        "canvas_length": spec.block_size,
        "tie_word_embeddings": True,
        **dict(zip(_IMAGE_KEYS, spec.image_ids, strict=False)),
        "text_config": {
            **_SWITCHES,
            "model_type": "diffusion_gemma_text",
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.d_model,
            "intermediate_size": spec.d_ff,
            "num_hidden_layers": spec.n_layers,
            "num_attention_heads": spec.n_heads,
            "num_key_value_heads": spec.n_kv_heads,
            "head_dim": spec.head_dim,
            "global_head_dim": two.head_dim,
            "num_global_key_value_heads": two.n_kv_heads,
            "sliding_window": two.window,
            "layer_types": kinds,
            "rope_parameters": {
                _SLIDING: {**_ROPE[_SLIDING], "rope_theta": spec.rope_theta},
                _FULL: {
                    **_ROPE[_FULL],
                    "rope_theta": two.rope_theta,
                    "partial_rotary_factor": share,
                },
            },
            "rms_norm_eps": spec.norm_eps,
            "final_logit_softcapping": spec.logit_cap,
            "max_position_embeddings": spec.max_positions,
            "num_experts": moe.n_experts,
            "top_k_experts": moe.top_k,
            "moe_intermediate_size": moe.d_expert,
            "eos_token_id": list(spec.eos_ids),
            "pad_token_id": spec.pad_id,
            "bos_token_id": spec.bos_id,
        },
    }


_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_after_norm.weight": "post_attention_layernorm.weight",
    "mlp_norm.weight": "pre_feedforward_layernorm.weight",
    "mlp_after_norm.weight": "post_feedforward_layernorm_1.weight",
    "experts_norm.weight": "pre_feedforward_layernorm_2.weight",
    "experts_after_norm.weight": "post_feedforward_layernorm_2.weight",
    "after_norm.weight": "post_feedforward_layernorm.weight",
    "attn.q.weight": "self_attn.q_proj.weight",
    "attn.k.weight": "self_attn.k_proj.weight",
    "attn.o.weight": "self_attn.o_proj.weight",
    "attn.q_norm.weight": "self_attn.q_norm.weight",
    "attn.k_norm.weight": "self_attn.k_norm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.up.weight": "mlp.up_proj.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
    "experts.router": "router.proj.weight",
    "experts.router_scale": "router.scale",
    "experts.expert_scale": "router.per_expert_scale",
    "experts.gate_up": "experts.gate_up_proj",
    "experts.down": "experts.down_proj",
    "decoder_scale": "layer_scalar",
}


def weights(spec: ModelSpec) -> WeightMap:
    assert spec.windows is not None
    theirs = "model.decoder"
    found: WeightMap = {
        "embed.weight": Whole(f"{theirs}.embed_tokens.weight"),
        "norm.weight": Whole(f"{theirs}.norm.weight"),
        "conditioning.norm.weight": Whole(f"{theirs}.self_conditioning.pre_norm.weight"),
    }
    for leaf in ("gate", "up", "down"):
        name = f"{theirs}.self_conditioning.{leaf}_proj.weight"
        found[f"conditioning.mlp.{leaf}.weight"] = Whole(name)
    for i in range(spec.n_layers):
        for ours, name in _LAYER.items():
            found[f"layers.{i}.{ours}"] = Whole(f"{theirs}.layers.{i}.{name}")
        if i not in spec.windows.full_layers:
            name = f"{theirs}.layers.{i}.self_attn.v_proj.weight"
            found[f"layers.{i}.attn.v.weight"] = Whole(name)
        name = f"model.encoder.language_model.layers.{i}.layer_scalar"
        found[f"layers.{i}.encoder_scale"] = Whole(name)
    return found


FAMILY = Family(
    name="diffusion_gemma",
    architectures=("DiffusionGemmaForBlockDiffusion",),
    model_types=("diffusion_gemma",),
    marks=("model.decoder.embed_tokens.weight",),
    read=read,
    write=write,
    weights=weights,
    chat="plain",
    unread=("model.encoder.vision_tower.", "model.encoder.embed_vision."),
    mask_in_tokenizer=False,
)

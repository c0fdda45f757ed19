"""The file layout that most families inherit from Qwen2, Qwen3 and Qwen3-MoE: keys and tensor
names.

Dream, SDAR, Fast-dLLM v2, WeDLM and LLaDA-MoE differ in attention and special tokens, hardly in
files.
"""

from typing import Any

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig
from dllm.models.spec import ModelSpec
from dllm.models.weights import Experts, WeightMap, Whole


SWITCHES = {"hidden_act": "silu", "use_sliding_window": False, "use_mrope": False}
"""Values that would change the network. `sliding_window` may hold a number: it is switched off."""


def body(config: CheckpointConfig, family: str) -> dict[str, Any]:
    """The fields of `ModelSpec` that every family of this layout reads the same way."""
    config.expect(family, SWITCHES)
    kinds = set(config.get("layer_types", ["full_attention"]))
    if kinds != {"full_attention"}:
        raise ConfigError(
            f"{config.source}: layer_types={sorted(kinds)}, {family} needs only 'full_attention'"
        )
    heads = config.count("num_attention_heads")
    width = config.count("hidden_size")
    return {
        "vocab_size": config.count("vocab_size"),
        "d_model": width,
        "n_layers": config.count("num_hidden_layers"),
        "n_heads": heads,
        "n_kv_heads": config.count("num_key_value_heads", heads),
        "head_dim": config.head_dim(width, heads),
        "norm_eps": config.number("rms_norm_eps"),
        "rope_theta": config.rope_theta(),
        "max_positions": config.count("max_position_embeddings"),
        "tied_embeddings": config.flag("tie_word_embeddings", False),
        "bos_id": config.get("bos_token_id"),
    }


def body_keys(spec: ModelSpec) -> dict[str, Any]:
    """The config.json keys that `body` reads, and the ids."""
    keys: dict[str, Any] = {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.d_model,
        "intermediate_size": spec.d_ff,
        "num_hidden_layers": spec.n_layers,
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "head_dim": spec.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.rope_theta,
        "rope_scaling": None,
        "max_position_embeddings": spec.max_positions,
        "use_sliding_window": False,
        "tie_word_embeddings": spec.tied_embeddings,
        "eos_token_id": spec.eos_ids[0] if len(spec.eos_ids) == 1 else list(spec.eos_ids),
        "pad_token_id": spec.pad_id,
    }
    if spec.bos_id is not None:
        keys["bos_token_id"] = spec.bos_id
    if spec.mask_id >= 0:
        keys["mask_token_id"] = spec.mask_id
    return keys


def weights(spec: ModelSpec) -> WeightMap:
    found = ends(spec, embed="model.embed_tokens")
    for i in range(spec.n_layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        found[f"{ours}.attn_norm.weight"] = Whole(f"{theirs}.input_layernorm.weight")
        found[f"{ours}.mlp_norm.weight"] = Whole(f"{theirs}.post_attention_layernorm.weight")
        for leaf in "qkvo":
            name = f"{theirs}.self_attn.{leaf}_proj"
            found[f"{ours}.attn.{leaf}.weight"] = Whole(f"{name}.weight")
            if spec.qkv_bias and leaf != "o":
                found[f"{ours}.attn.{leaf}.bias"] = Whole(f"{name}.bias")
        if spec.qk_norm:
            for leaf in "qk":
                name = f"{theirs}.self_attn.{leaf}_norm.weight"
                found[f"{ours}.attn.{leaf}_norm.weight"] = Whole(name)
        found |= feed_forward(spec, i)
    return found


def ends(spec: ModelSpec, embed: str) -> WeightMap:
    """Embedding, final norm and LM head."""
    found: WeightMap = {
        "embed.weight": Whole(f"{embed}.weight"),
        "norm.weight": Whole("model.norm.weight"),
    }
    if not spec.tied_embeddings:
        found["head.weight"] = Whole("lm_head.weight")
    return found


def feed_forward(spec: ModelSpec, layer: int) -> WeightMap:
    """The dense or expert feed-forward of one layer."""
    ours, theirs = f"layers.{layer}.mlp", f"model.layers.{layer}.mlp"
    if spec.moe is None or not spec.is_moe(layer):
        return dense(ours, theirs)
    experts = [f"{theirs}.experts.{e}" for e in range(spec.moe.n_experts)]
    found: WeightMap = {
        f"{ours}.router": Whole(f"{theirs}.gate.weight"),
        f"{ours}.gate_up": Experts(
            tuple((f"{e}.gate_proj.weight", f"{e}.up_proj.weight") for e in experts)
        ),
        f"{ours}.down": Experts(tuple((f"{e}.down_proj.weight",) for e in experts)),
    }
    if spec.moe.expert_bias:
        found[f"{ours}.expert_bias"] = Whole(f"{theirs}.gate.expert_bias")
    if spec.moe.d_shared:
        found |= dense(f"{ours}.shared", f"{theirs}.shared_experts")
    return found


def dense(ours: str, theirs: str) -> WeightMap:
    return {
        f"{ours}.{leaf}.weight": Whole(f"{theirs}.{leaf}_proj.weight")
        for leaf in ("gate", "up", "down")
    }

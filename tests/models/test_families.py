"""Recognising families and reading their config.json."""

import pytest
import torch
from tiny_checkpoints import CONFIGS

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig, Overrides
from dllm.models.families import FAMILIES, family_named, recognise
from dllm.models.loading import spec_from_config
from dllm.models.presets import PRESETS, preset_config
from dllm.models.sizes import memory, sizes
from dllm.models.spec import NO_MASK


LLADA_NAMES = {"model.transformer.wte.weight"}
MOE_NAMES = {"model.embed_tokens.weight", "model.layers.0.self_attn.q_norm.weight"}
QWEN2_NAMES = {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias"}
LLADA2_NAMES = {"model.word_embeddings.weight", "model.layers.0.attention.query_key_value.weight"}


def found(config: dict, tensors: set[str] | None = None) -> str:
    return recognise(CheckpointConfig(config, tensors=tensors)).name


def test_architecture_wins_over_the_shared_model_type() -> None:
    """LLaDA-8B and LLaDA-MoE both say model_type "llada"."""
    assert found({"architectures": ["LLaDAModelLM"], "model_type": "llada"}) == "llada"
    assert found({"architectures": ["LLaDAMoEModelLM"], "model_type": "llada"}) == "llada_moe"


def test_architecture_names_are_unique() -> None:
    names = [name for family in FAMILIES for name in family.architectures]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", CONFIGS)
def test_recognised_by_architecture(family: str) -> None:
    assert found(dict(CONFIGS[family])) == family


def test_model_type_with_the_help_of_tensor_names() -> None:
    assert found({"model_type": "llada"}, LLADA_NAMES) == "llada"
    assert found({"model_type": "llada"}, MOE_NAMES) == "llada_moe"
    assert found({"model_type": "Dream"}) == "dream"
    assert found({"architectures": ["SomeFineTune"], "model_type": "sdar"}) == "sdar"
    with pytest.raises(ConfigError, match=r"may be llada, llada_moe: set model\.family"):
        found({"model_type": "llada"})


def test_tensor_names_alone() -> None:
    assert found({}, LLADA_NAMES) == "llada"
    assert found({}, LLADA2_NAMES) == "llada2"
    with pytest.raises(ConfigError, match=r"may be dream, fast_dllm_v2, .*set model\.family"):
        found({}, QWEN2_NAMES)


def test_wrong_family() -> None:
    with pytest.raises(ConfigError, match=r"'GPT2LMHeadModel'.*LLaDAModelLM"):
        found({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"})
    # dFactory's merged-expert layout
    with pytest.raises(ConfigError, match="llada2_moe_veomni"):
        found({"architectures": ["Unknown"], "model_type": "llada2_moe_veomni"})
    with pytest.raises(ConfigError, match=r"model\.family=gpt is not one of llada"):
        family_named("gpt")


def test_named_family() -> None:
    config = {k: v for k, v in CONFIGS["sdar"].items() if k != "architectures"}
    assert spec_from_config(config, family="sdar").family == "sdar"


@pytest.mark.parametrize(
    ("family", "changes", "word"),
    [
        ("llada", {"block_group_size": 2}, "block_group_size=2"),
        ("llada", {"alibi": True}, "alibi=True"),
        ("llada", {"rope_full_precision": False}, "rope_full_precision=False"),
        ("llada_moe", {"shared_expert_intermediate_size": 64}, "shared_expert"),
        ("llada_moe", {"moe_layer_freq": [1]}, "moe_layer_freq has 1 entries for 2 layers"),
        ("llada_moe", {"num_experts_per_tok": 9}, "9 experts per token of 8"),
        ("llada2", {"n_group": 3}, "8 experts can't be split into 3 groups"),
        ("llada2", {"num_experts_per_tok": 5}, "5 experts per token of 4"),
        ("llada_moe", {"moe_router_enable_expert_bias": True}, "expert_bias=True"),
        ("llada2", {"use_bias": True}, "use_bias=True"),
        ("llada2", {"score_function": "softmax"}, "score_function='softmax'"),
        ("llada2", {"rotary_dim": 4}, "rotary_dim=4"),
        ("dream", {"use_mrope": True}, "use_mrope=True"),
        ("sdar", {"attention_bias": True}, "attention_bias=True"),
        ("sdar_moe", {"decoder_sparse_step": 2}, "decoder_sparse_step=2"),
        ("fast_dllm_v2", {"layer_types": ["sliding_attention"]}, "sliding_attention"),
        ("autoregressive", {"attention_bias": True}, "attention_bias=True"),
    ],
)
def test_architecture_switches(family: str, changes: dict, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_from_config({**CONFIGS[family], **changes})
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_missing_use_bias_is_not_taken_for_false() -> None:
    config = {k: v for k, v in CONFIGS["llada2"].items() if k != "use_bias"}
    with pytest.raises(ConfigError, match="lacks the key 'use_bias'"):
        spec_from_config(config)


def test_attention_and_alignment() -> None:
    kinds = {name: spec_from_config(config) for name, config in CONFIGS.items()}
    assert {n: s.attention for n, s in kinds.items()} == {
        "llada": "full",
        "llada_moe": "full",
        "llada2": "block_causal",
        "dream": "full",
        "sdar": "block_causal",
        "sdar_moe": "block_causal",
        "fast_dllm_v2": "block_causal",
        "wedlm": "causal",
        "autoregressive": "causal",
        "diffusion_gemma": "causal_prefix",
        "llama": "causal",
    }
    shifted = {name for name, spec in kinds.items() if spec.logit_shift}
    assert shifted == {"dream", "fast_dllm_v2", "autoregressive", "llama"}
    assert kinds["llada2"].block_size == 32 and kinds["fast_dllm_v2"].block_size == 8
    assert kinds["autoregressive"].mask_id == NO_MASK
    for name in ("autoregressive", "llama"):
        assert spec_from_config(CONFIGS[name], Overrides(mask_id=3)).mask_id == 3


def test_wedlm_norms_follow_the_tensors() -> None:
    config = {k: v for k, v in CONFIGS["wedlm"].items() if k != "attention_bias"}
    qwen2 = spec_from_config(config, tensors=frozenset(QWEN2_NAMES))
    assert qwen2.qkv_bias and not qwen2.qk_norm
    qwen3 = spec_from_config(config, tensors=frozenset(MOE_NAMES))
    assert qwen3.qk_norm and not qwen3.qkv_bias
    with pytest.raises(ConfigError, match=r"qk_norm=False but .*q_norm.weight is there"):
        spec_from_config({**config, "qk_norm": False}, tensors=frozenset(MOE_NAMES))
    with pytest.raises(ConfigError, match=r"attention_bias=True but .*bias is missing"):
        spec_from_config({**config, "attention_bias": True}, tensors=frozenset(MOE_NAMES))


PUBLISHED = {
    "llada-8b": 8_015_581_184,
    "llada-moe-7b-a1b": 7_356_880_896,
    "llada2-mini": 16_255_643_392,
    "llada2-flash": 102_889_705_216,
    "dream-7b": 7_615_616_512,
    "sdar-4b": 4_411_424_256,
    "sdar-8b": 8_190_735_360,
    "fast-dllm-v2-7b": 7_615_616_512,
    "wedlm-7b": 7_615_616_512,
    "wedlm-8b": 8_190_735_360,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_counts(preset: str) -> None:
    size = sizes(spec_from_config(preset_config(preset)))
    assert size.parameters == PUBLISHED.get(preset, size.parameters)
    assert size.active <= size.parameters


def test_hub_ids_of_the_special_tokens() -> None:
    ids = {n: spec_from_config(preset_config(n)) for n in PRESETS}
    assert ids["llada-8b"].mask_id == 126336 and ids["llada-8b"].eos_ids == (126081, 126348)
    assert ids["llada2-mini"].mask_id == 156895 and ids["llada2-mini"].eos_ids == (156892,)
    assert ids["dream-7b"].mask_id == 151666 and ids["dream-7b"].eos_ids == (151643, 151645)
    assert ids["sdar-8b"].mask_id == 151669 and ids["sdar-8b"].eos_ids == (151643, 151645)
    assert ids["wedlm-8b"].mask_id == 151665
    assert ids["fast-dllm-v2-1.5b"].tied_embeddings


def test_memory() -> None:
    spec = spec_from_config(preset_config("llada-8b"))
    rows = list(memory(spec, torch.bfloat16, (1, 4), (512, 8192)))
    assert [(r.batch, r.length) for r in rows] == [(1, 512), (4, 512)]  # 4,096 positions
    assert rows[0].kv == 512 * 524_288  # bytes per token
    assert rows[1].total == rows[1].weights + 4 * rows[0].kv + 4 * rows[0].logits
    assert sizes(spec_from_config(preset_config("sdar-8b"))).kv_values_per_position * 2 == 147_456
    assert sizes(spec_from_config(preset_config("dream-7b"))).kv_values_per_position * 2 == 57_344
    with pytest.raises(ConfigError, match=r"model\.preset=llama is not one of"):
        preset_config("llama")

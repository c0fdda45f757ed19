"""Checkpoint folders: round trips, shards, dtypes, strictness, one-line errors."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import CONFIGS, tiny_model, write_checkpoint
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.config_reader import Overrides
from dllm.models.families import family_named
from dllm.models.loading import dummy_model, load_model, read_spec, save_model
from dllm.models.tensor_file import TensorFile
from dllm.models.transformer import Transformer


def refused(folder: Path, *words: str, **options) -> None:
    """Loading fails with one line that holds all the words."""
    with pytest.raises(ConfigError) as caught:
        load_model(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def edit_config(folder: Path, **changes) -> None:
    """Sets keys of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def edit_tensors(folder: Path, **changes: Tensor | None) -> None:
    path = folder / "model.safetensors"
    state = {**load_file(path), **changes}
    save_file({k: v for k, v in state.items() if v is not None}, path)


def shard(folder: Path, parts: int) -> list[Path]:
    """Splits model.safetensors as the hub does."""
    path = folder / "model.safetensors"
    state = load_file(path)
    names = sorted(state)
    files = [folder / f"model-{i + 1:05}-of-{parts:05}.safetensors" for i in range(parts)]
    weight_map = {}
    for i, file in enumerate(files):
        chosen = names[i::parts]  # the pieces of one parameter lie in several shards
        save_file({name: state[name] for name in chosen}, file)
        weight_map |= dict.fromkeys(chosen, file.name)
    path.unlink()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def same(a: Transformer, b: Transformer) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("family", CONFIGS)
def test_round_trip(family: str, tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path, family)
    read = load_model(tmp_path)
    assert read.spec == written.spec
    assert same(read, written)
    assert not read.training and not any(p.requires_grad for p in read.parameters())


@pytest.mark.parametrize("family", CONFIGS)
def test_shards(family: str, tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path, family)
    files = shard(tmp_path, 3)
    assert same(load_model(tmp_path), written)
    files[1].unlink()
    refused(tmp_path, "lacks", files[1].name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model("llada2")
    model.layers[1].mlp.expert_bias.fill_(1 + 2**-12)  # not a bfloat16
    save_model(model, tmp_path)
    read = load_model(tmp_path, dtype)
    assert {p.dtype for p in read.parameters()} == {dtype}
    bias = read.layers[1].mlp.expert_bias
    assert bias.dtype == torch.float32 and torch.equal(bias, model.layers[1].mlp.expert_bias)
    tokens = torch.arange(8)[None]
    found = read.logits(read.hidden(tokens))
    assert found.dtype == torch.float32  # LLaDA2 upcasts its logits
    expected = model.logits(model.hidden(tokens))
    torch.testing.assert_close(found, expected, atol=0.15, rtol=0.1)


def test_checkpoint_in_another_dtype(tmp_path: Path) -> None:
    model = tiny_model("llada_moe")
    save_model(model, tmp_path, torch.bfloat16)
    for name, tensor in load_model(tmp_path).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16().float())


def test_fused_rows_are_queries_then_keys_then_values(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path, "llada2")
    fused = load_file(tmp_path / "model.safetensors")[
        "model.layers.0.attention.query_key_value.weight"
    ]
    attention = model.layers[0].attn
    parts = (attention.q.weight, attention.k.weight, attention.v.weight)
    assert torch.equal(fused, torch.cat(parts))


def test_tied_head_may_be_stored_once_more(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "fast_dllm_v2")
    names = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in names
    edit_tensors(
        tmp_path,
        **{"lm_head.weight": names["model.embed_tokens.weight"].clone()},
        **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)},
    )
    assert load_model(tmp_path).head is None


@pytest.mark.parametrize(
    ("family", "tie", "head", "embedding"),
    [
        ("sdar", "tie_word_embeddings", "lm_head", "model.embed_tokens"),
        ("llada", "weight_tying", "model.transformer.ff_out", "model.transformer.wte"),
    ],
)
def test_tied_head_of_its_own_is_refused(
    family: str, tie: str, head: str, embedding: str, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, family)
    edit_config(tmp_path, **{tie: True})
    with pytest.raises(ConfigError, match=rf"a {head}\.weight of its own.*{tie}"):
        load_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    edit_tensors(tmp_path, **{f"{head}.weight": tensors[f"{embedding}.weight"].clone()})
    assert load_model(tmp_path).head is None


@pytest.mark.parametrize("family", CONFIGS)
def test_more_layers_than_tensors_are_refused_at_once(family: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, family)
    config = json.loads((tmp_path / "config.json").read_text())
    text = config.get("text_config", config)  # of DiffusionGemma
    (key,) = text.keys() & {"n_layers", "num_hidden_layers"}
    text[key] = 10**12
    edit_config(tmp_path, **config)
    refused(tmp_path, "000000000")


def test_missing_and_unexpected_tensors(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "sdar")
    norm = "model.layers.1.self_attn.k_norm.weight"
    edit_tensors(tmp_path, **{norm: None})
    refused(tmp_path, "lacks 1 tensors", norm)
    edit_tensors(tmp_path, **{norm: torch.ones(16), "model.layers.0.extra": torch.ones(2)})
    refused(tmp_path, "1 unexpected tensors", "model.layers.0.extra")
    edit_tensors(tmp_path, **{norm: torch.ones(8), "model.layers.0.extra": None})
    refused(tmp_path, norm, "shape [8]", "[16]")


def test_missing_expert(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "sdar_moe")
    name = "model.layers.1.mlp.experts.5.up_proj.weight"
    edit_tensors(tmp_path, **{name: None})
    refused(tmp_path, "lacks 1 tensors", name)


def test_truncated_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llada")
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(tmp_path, str(path), "truncated or not safetensors")
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"not json" * 4)
    refused(tmp_path, "not safetensors")


def test_quantised_weights(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llada")
    name = "model.transformer.blocks.0.q_proj.weight"
    edit_tensors(tmp_path, **{name: torch.zeros(48, 48, dtype=torch.int8)})
    refused(tmp_path, name, "I8", "quantised")
    edit_config(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    refused(tmp_path, "quantised weights (gptq)")


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6}},
    ],
)
def test_scaled_rotary(changes: dict, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "dream")
    edit_config(tmp_path, **changes)
    refused(tmp_path, next(iter(changes)), "not supported, only 'default'")


def test_rope_theta_where_newer_exports_put_it(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "dream")
    nested = {"rope_type": "default", "rope_theta": 12345.0}
    edit_config(tmp_path, rope_theta=None, rope_parameters=nested)
    assert read_spec(tmp_path).rope_theta == 12345.0


def test_folder_errors(tmp_path: Path) -> None:
    refused(tmp_path / "none", "is not a folder")
    refused(tmp_path, "holds no config.json")
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, "config.json", "not valid JSON")
    (tmp_path / "config.json").write_text(json.dumps(dict(CONFIGS["llada"])))
    refused(tmp_path, "lacks model.safetensors")


def test_config_errors(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "sdar")
    for changes, words in (
        ({"hidden_size": None}, ["lacks the key 'hidden_size'"]),
        ({"hidden_size": 48, "num_hidden_layers": "two"}, ["num_hidden_layers='two'"]),
        ({"num_hidden_layers": 2, "num_key_value_heads": 3}, ["n_kv_heads=3"]),
        ({"num_key_value_heads": 2, "mask_token_id": 97}, ["model.mask_id=97", "[0, 97)"]),
        ({"mask_token_id": 95, "pad_token_id": 99}, ["config.json: pad_id=99 is outside"]),
        (
            {"pad_token_id": None, "mask_token_id": None},
            ["lacks mask_token_id", "151669", "set model.mask_id"],
        ),
        ({"mask_token_id": 95, "hidden_act": "gelu"}, ["hidden_act='gelu'", "needs 'silu'"]),
        ({"hidden_act": "silu", "use_sliding_window": True}, ["use_sliding_window=True"]),
        ({"use_sliding_window": False, "rms_norm_eps": "1e-6"}, ["rms_norm_eps='1e-6'"]),
        ({"rms_norm_eps": 1e-6, "rope_theta": 0}, ["rope_theta=0 is not a finite number > 0"]),
        ({"rms_norm_eps": 1e-6, "rope_theta": float("inf")}, ["rope_theta=inf is not a finite"]),
        ({"rms_norm_eps": float("nan"), "rope_theta": 1e4}, ["rms_norm_eps=nan is not a finite"]),
        ({"rope_theta": 1e6, "rms_norm_eps": 1e-6, "head_dim": 15}, ["15 rotary dimensions"]),
        ({"head_dim": None, "num_attention_heads": 5}, ["5 heads do not divide the width 48"]),
    ):
        edit_config(tmp_path, **changes)
        refused(tmp_path, *words)


def test_overrides(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "sdar")
    edit_config(tmp_path, mask_token_id=None, block_size=None)
    chosen = Overrides(mask_id=7, block_size=16, eos_ids=(3, 4), pad_id=5, norm_weight_fp32=True)
    spec = load_model(tmp_path, overrides=chosen).spec
    assert (spec.mask_id, spec.block_size, spec.eos_ids, spec.pad_id) == (7, 16, (3, 4), 5)
    assert spec.norm_weight_fp32
    assert read_spec(tmp_path, Overrides(mask_id=7)).block_size == 4
    refused(tmp_path, "model.block_size=0", overrides=Overrides(mask_id=7, block_size=0))


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        (90, [91, 90], (90, 91)),
        (90, 91, (90, 91)),
        ([90, 89], 91, (90, 89, 91)),
        (None, [91, 90], (91, 90)),
        (None, 91, (91,)),
        ([90], None, (90,)),
        (None, None, (91,)),  # the pad token
    ],
)
def test_end_ids_of_both_files(
    config: object, generation: object, ends: tuple[int, ...], tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, "sdar", eos_token_id=config)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert read_spec(tmp_path).eos_ids == ends


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", ["90", [], [90, "91"], True, -1, {"id": 90}, 90.0, [None]])
def test_end_ids_of_the_wrong_kind(file: str, value: object, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "sdar")
    path = tmp_path / file
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, "eos_token_id": value}))
    with pytest.raises(ConfigError, match="eos_token_id"):
        read_spec(tmp_path)


def test_end_ids_and_mask_id_of_the_options(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "sdar")
    for given, message in [
        (Overrides(eos_ids=()), r"model: eos_ids=\[\] names no end token"),
        (Overrides(eos_ids=(-3,)), "eos_ids=-3 is not a token id"),
        (Overrides(eos_ids=(97,)), r"model\.eos_ids=97 is outside the vocabulary"),
        (Overrides(mask_id=-1), r"model\.mask_id=-1 is not a token id"),
        (Overrides(mask_id=90), r"model\.mask_id=90 is an end token"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_spec(tmp_path, given)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("value", ["x", [], {}, {"a": 1}, [1], -1, 1e400, "1", [[]]])
def test_a_config_value_of_any_kind_is_read_or_refused(
    family: str, value: object, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, family)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in [*config, "rope_scaling", "rope_parameters", "layer_types", "head_dim"]:
        (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
        try:
            read_spec(tmp_path)
        except ConfigError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list, not an object"),
        ("{}", "lacks a weight_map"),
        ('{"weight_map": {}}', "lacks a weight_map"),
        ('{"weight_map": ["x"]}', "lacks a weight_map"),
        ('{"weight_map": {"a": 5}}', "names 5 for a"),
        ('{"weight_map": {"a": "../other.safetensors"}}', "no file beside it"),
        (
            '{"weight_map": {"a": "absent.safetensors", "b": "x", "c": "x"}}',
            "lacks absent.safetensors",
        ),
    ],
)
def test_damaged_shard_index(text: str, message: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "sdar")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_model(tmp_path)


def test_device_that_is_not_there(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llada")
    refused(tmp_path, "model.device=cuda:99", "cpu, cuda, cuda:N or auto", device="cuda:99")
    refused(tmp_path, "model.device=gpu0", device="gpu0")


def test_dummy_model_is_seeded() -> None:
    a, b = (tiny_model("llada2", seed=3) for _ in range(2))
    assert same(a, b) and not same(a, tiny_model("llada2", seed=4))
    half = dummy_model(a.spec, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.layers[1].mlp.expert_bias.dtype == torch.float32


@pytest.mark.parametrize("family", CONFIGS)
def test_every_parameter_has_a_source(family: str) -> None:
    model = tiny_model(family)
    assert family_named(family).weights(model.spec).keys() == model.state_dict().keys()


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_an_end_id_outside_the_vocabulary_is_named_by_its_file(tmp_path: Path, file: str) -> None:
    write_checkpoint(tmp_path, "sdar")
    path = tmp_path / file
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(held | {"eos_token_id": [90, 5000]}))
    words = re.escape(f"{path}: eos_token_id=5000 is outside the vocabulary")
    with pytest.raises(ConfigError, match=words):
        read_spec(tmp_path)
    assert read_spec(tmp_path, Overrides(eos_ids=(90,))).eos_ids == (90,)


@pytest.mark.parametrize("shape", [["a"], [2.0], [-2, -3], 5])
def test_a_tensor_without_a_shape(tmp_path: Path, shape: object) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 24]}
    header = json.dumps({"head.weight": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    with pytest.raises(ConfigError, match="is truncated or not safetensors"), TensorFile(path):
        pass

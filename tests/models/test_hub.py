"""Opening models from the options of the `model` group."""

from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from test_tokenizers import write_fast
from tiny_checkpoints import write_checkpoint

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.models.hub import ALLOWED_FILES, ModelOptions, open_model, open_spec


CONFIGS = Path(__file__).parents[2] / "conf" / "model"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def checkpoint(folder: Path, family: str, **changes) -> Path:
    write_checkpoint(folder, family, **{"vocab_size": 300, **changes})
    return write_fast(folder)


@cache
def options(name: str) -> ModelOptions:
    return build(compose([f"model={name}"]).model, "model")


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration(name: str) -> None:
    """Composes, types fit, and the architecture is known without weights."""
    found = options(name)
    # tiny-wedlm-ar reads the weights of tiny-wedlm as an autoregressive model.
    assert found.name == ("tiny-wedlm" if name == "tiny-wedlm-ar" else name)
    if found.hub is not None:
        spec = open_spec(found)
        assert spec.block_size == (found.block_size or spec.block_size)
        assert found.hub.split("/")[1].lower().startswith(name.split("-")[0][:3])


def test_hub_ids_are_distinct() -> None:
    hubs = [hub for name in NAMES if (hub := options(name).hub)]
    assert len(hubs) == len(set(hubs)) == 40


def test_tdar_decodes_with_16() -> None:
    assert open_spec(options("tdar-8b-thinking")).block_size == 16


def test_local_folder(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "sdar", mask_token_id=259)
    model, tokenizer = open_model(ModelOptions("mine", path=str(folder)))
    assert model.spec.mask_id == 259 and tokenizer.token(259) == "<|mask|>"
    config = compose(["model=checkpoint", f"model.path={folder}", "model.device=cpu"])
    again, _ = open_model(config.model)
    assert again.dtype == torch.bfloat16
    assert isinstance(config.model, DictConfig)


def test_options_reach_the_model(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "sdar", mask_token_id=259)
    chosen = ModelOptions(
        "mine", path=str(folder), mask_id=290, block_size=8, eos_ids=[257], chat="qwen3"
    )
    model, tokenizer = open_model(chosen)
    assert (model.spec.mask_id, model.spec.block_size, model.spec.eos_ids) == (290, 8, (257,))
    assert tokenizer.render("Hi!").startswith("<|im_start|>user\nHi!")


def test_an_untrained_model_has_the_checkpoints_shape(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "sdar", mask_token_id=259)
    models = [open_model(ModelOptions("mine", path=str(folder), random=s))[0] for s in (0, 0, 1)]
    given, _ = open_model(ModelOptions("mine", path=str(folder)))
    first, again, other = (dict(model.named_parameters()) for model in models)
    assert models[0].spec == given.spec
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_family_template_where_the_folder_has_none(tmp_path: Path) -> None:
    _, tokenizer = open_model(
        ModelOptions("mine", path=str(checkpoint(tmp_path, "dream", mask_token_id=259)))
    )
    assert tokenizer.render("Hi!").startswith("<|im_start|>system\nYou are a helpful assistant.")


def test_tokenizer_without_a_mask_token(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "dream", mask_token_id=280)
    with pytest.raises(ConfigError, match=r"no token for the mask id 280: set model\.mask_id"):
        open_model(ModelOptions("mine", path=str(folder)))


def test_wedlm_masks_by_id(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "wedlm", mask_token_id=280)
    model, _ = open_model(ModelOptions("mine", path=str(folder)))
    assert model.spec.mask_id == 280


def test_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "dream", vocab_size=200)
    with pytest.raises(ConfigError, match="has 260 ids, the model only 200 rows"):
        open_model(ModelOptions("mine", path=str(folder)))


def test_unknown_embedded_model() -> None:
    with pytest.raises(ConfigError, match=r"model\.name=tiny is not embedded .*set model\.path"):
        open_model(ModelOptions("tiny"))


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("dllm.models.hub._reachable", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        open_model(ModelOptions("llada", hub="GSAI-ML/LLaDA-8B-Instruct"))
    message = str(caught.value)
    assert "\n" not in message
    for word in ("GSAI-ML/LLaDA-8B-Instruct", "config.json", "set model.path"):
        assert word in message
    with pytest.raises(ConfigError, match=r"model\.hub=not/a/name"):
        open_model(ModelOptions("x", hub="not/a/name"))


def test_no_code_is_ever_downloaded() -> None:
    for name in ("modeling_dream.py", "model.bin", "pytorch_model.pt", "weights.pkl"):
        assert not any(fnmatch(name, pattern) for pattern in ALLOWED_FILES)


@pytest.mark.parametrize(
    ("family", "device", "line"),
    [
        (
            "llada",
            "cpu",
            "model.compile=graphs records what one GPU computes, not model.device=cpu",
        ),
        ("llada", "auto", "not model.device=auto; set model.device=cuda or cuda:N"),
        ("llada_moe", "cuda", "model.compile=graphs: the llada_moe model chooses its experts anew"),
    ],
)
def test_what_can_not_be_recorded_is_refused(
    family: str, device: str, line: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path, family)
    with pytest.raises(ConfigError, match=line):
        open_model(ModelOptions("mine", path=str(folder), device=device, compile="graphs"))

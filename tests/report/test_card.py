"""`python -m scripts.inspect`: what it prints, and that it needs no weights."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import CONFIGS

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.models.hub import ModelOptions
from dllm.models.loading import spec_from_config
from dllm.models.presets import preset_config
from dllm.report.card import describe
from dllm.report.support import supported
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.decoding import fitting
from dllm.runs.others import others
from dllm.runs.parts import build_parts


def card(tmp_path: Path, family: str, **arguments) -> str:
    (tmp_path / "config.json").write_text(json.dumps(dict(CONFIGS[family])))
    options = ModelOptions("mine", path=str(tmp_path))
    given = {"batches": [1, 4], "lengths": [64, 512], "rows": 8, **arguments}
    return "\n".join(describe(options, **given))


def test_config_json_is_enough(tmp_path: Path) -> None:
    text = card(tmp_path, "llada2")
    for words in (
        f"mine ({tmp_path}), float32",
        "family                  llada2",
        "3 of 8 of width 16, shared expert of 32, sigmoid_group router",
        "block-causal, blocks of 32 from position 0",
        "8 of 16 dimensions",
        "mask 95, end 90, pad 91, 97 rows",
        "active per token",
    ):
        assert words in text
    assert text.count("\n       4     128") == 1  # 512 positions do not fit: the model's limit
    assert "  block                   yes" in text
    assert "  dual                    no: cache=DualCache needs full attention" in text


def test_a_model_that_can_be_asked_nothing(checkpoint: Path, tmp_path: Path) -> None:
    assert "  prompts                 no: " in card(tmp_path, "llada2")
    folder = tmp_path / "whole"
    shutil.copytree(checkpoint, folder)
    options = ModelOptions("mine", path=str(folder))
    assert "  prompts " not in "\n".join(describe(options, [1], [64], 8))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": None}))
    text = "\n".join(describe(options, [1], [64], 8))
    assert "  prompts                 no: model.path=" in text and "brings no chat template" in text


def test_alignment_and_order_are_spelt_out(tmp_path: Path) -> None:
    dream = card(tmp_path, "dream")
    assert "row i-1 predicts position i" in dream and "128 (trained on 128)" in dream
    assert "the last row of the block before" in card(tmp_path, "fast_dllm_v2")
    assert "decided tokens first, then masks" in card(tmp_path, "wedlm")
    assert "theta 500000, 12 of 12 dimensions, in float32" in card(tmp_path, "llada")


def test_an_autoregressive_model_decodes_nothing(tmp_path: Path) -> None:
    text = card(tmp_path, "autoregressive")
    assert "mask none" in text
    rows = text.split("samplers\n")[1].splitlines()
    assert all("no: the model is autoregressive" in row for row in rows if row != "caches")


def test_every_sampler_and_cache_is_listed() -> None:
    spec = spec_from_config(preset_config("llada-8b"))
    root = Path(__file__).parents[2] / "conf"
    for group in ("sampler", "cache"):
        listed = [entry.option for entry in supported(group, spec, None)]
        assert listed == sorted(path.stem for path in (root / group).glob("*.yaml"))


@pytest.mark.parametrize("name", ["tiny-llada", "tiny-sdar", "tiny-wedlm", "tiny-ar"])
def test_what_is_listed_is_what_a_run_refuses(name: str) -> None:
    given = [f"model={name}", "batch_size=1", "baseline=false"]
    checkpoint = Checkpoint(build(compose(given).model, "model"))
    for entry in supported("sampler", checkpoint.spec, checkpoint):
        config = compose([*given, f"sampler={entry.option}"])
        try:
            others(config, fitting(config, build_parts(config), checkpoint), checkpoint)
        except ConfigError:
            assert entry.refusals, entry
        else:
            assert not entry.refusals, entry


@pytest.mark.parametrize("arguments", [{"batches": []}, {"lengths": [0]}, {"rows": 0}])
def test_sizes_are_checked(arguments: dict, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}=.* must hold"):
        card(tmp_path, "llada", **arguments)


def test_command_line(tmp_path: Path) -> None:
    def inspect(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scripts.inspect", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = inspect("model=llada-8b-instruct", "batches=[2]", "lengths=[1024]")
    assert done.returncode == 0, done.stderr
    assert "8,015,581,184" in done.stdout and "1.00 GiB" in done.stdout
    for options, words in (
        (["model=checkpoint", "model.path=nowhere"], "model.path=nowhere is not a folder"),
        (["model.compile=graphs"], "model.compile=graphs records what one GPU computes, not"),
    ):
        failed = inspect(*options)
        assert failed.returncode == 2
        assert failed.stderr.startswith(f"error: {words}") and failed.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # leaves nothing behind

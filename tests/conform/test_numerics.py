"""Every recorded forward of the model folders, cached ones included."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dllm.conform.numerics import CallResult, check, is_numerics_folder
from dllm.errors import ConfigError


GOLDEN = Path(__file__).parents[1] / "golden" / "models"
FOLDERS = sorted(f.name for f in GOLDEN.iterdir() if is_numerics_folder(f))


def test_folders_of_traces_are_no_numerics_folders() -> None:
    assert FOLDERS and not is_numerics_folder(GOLDEN / "tiny-llada")
    with pytest.raises(ConfigError, match=r"numerics\.json"):
        check(GOLDEN / "tiny-llada")


@pytest.mark.parametrize("folder", FOLDERS)
def test_recorded_calls(folder: str) -> None:
    results = check(GOLDEN / folder)
    assert len(results) >= len(json.loads((GOLDEN / folder / "numerics.json").read_text())["calls"])
    assert [r for r in results if not r.passed] == []
    # The recordings' own tolerance is ten times what is seen.
    assert max(r.max_abs_difference for r in results) < 2e-5


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(GOLDEN / "sdar", tmp_path / "sdar")
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.self_attn.k_norm.weight"] *= 1.01
    save_file(state, folder / "model.safetensors")
    assert not all(r.passed for r in check(folder))


def test_not_a_number_fails() -> None:
    assert not CallResult("x", float("nan"), 1e-4).passed
    assert not CallResult("x", 0.0, 1e-4, argmax_differences=1).passed
    assert CallResult("x", torch.tensor(1e-4).item() / 2, 1e-4).passed

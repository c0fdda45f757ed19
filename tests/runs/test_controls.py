"""What runs beside a sampler: its matched control, and the baseline as the oracle's reference."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.models.filter import FilterFacts, FilterNetwork, save_filter
from dllm.report.tables import comparison
from dllm.runs.beside import control_of
from dllm.runs.execute import execute


@pytest.fixture
def filter_file(tmp_path: Path) -> Path:
    """Accepts a position iff its confidence exceeds 0.8178 (at 0.96)."""
    network = FilterNetwork(FilterFacts(block_length=8, depth=1))
    weights = {"linear1.weight": 10 * torch.eye(8), "linear1.bias": torch.full((8,), -5.0)}
    network.load_state_dict(weights)
    save_filter(network, tmp_path / "filter.safetensors")
    return tmp_path / "filter.safetensors"


def test_control_of_a_filter(filter_file: Path) -> None:
    options = ["sampler=learn2pd", f"sampler.filter={filter_file}", "cache=dual"]
    config = compose([*options, "sampler.region.block_length=8"])
    found = control_of(config, "learn2pd", build(config.sampler, "sampler"))
    assert found is not None
    control, name = found
    assert name == "threshold"
    assert control.sampler.threshold == pytest.approx(0.82)
    assert control.sampler.region.block_length == 8
    assert control.cache == config.cache


def test_control_inside_other_samplers(filter_file: Path) -> None:
    options = ["sampler=eotp", "sampler@sampler.base=learn2pd"]
    config = compose([*options, f"sampler.base.filter={filter_file}"])
    found = control_of(config, "eotp", build(config.sampler, "sampler"))
    assert found is not None
    control, name = found
    assert name == "eotp"
    assert control.sampler.base._target_ == "samplers.threshold.Threshold"
    assert control.sampler.zone == config.sampler.zone
    plain = compose(["sampler=threshold"])
    assert control_of(plain, "threshold", build(plain.sampler, "sampler")) is None


def test_table_shows_the_control(filter_file: Path, options: Callable[..., list[str]]) -> None:
    config = compose(options("sampler=learn2pd", f"sampler.filter={filter_file}", "limit=2"))
    _, summary = execute(config, "learn2pd")
    table = comparison([summary])
    labels = list(table.columns[0].cells)
    assert labels[0].startswith("low_confidence")
    assert labels[1].startswith("control: threshold (region.block_length=8, threshold=0.82")
    assert labels[2].startswith("learn2pd")


def test_oracle_follows_the_baseline(options: Callable[..., list[str]]) -> None:
    config = compose(options("sampler=oracle", "limit=2"))
    _, summary = execute(config, "oracle")
    assert summary["metrics"]["accuracy"] == summary["baseline"]["metrics"]["accuracy"]
    assert summary["versus_baseline"]["nfe_speedup"] >= 1
    with pytest.raises(ConfigError, match="needs the baseline's answers as references"):
        execute(compose(options("sampler=oracle", "limit=1", "baseline=false")), "oracle")

"""Files of Learn2PD filters: written, read, converted, refused."""

import pickle
from pathlib import Path

import pytest
import torch
from small_filters import network

from dllm.errors import ConfigError
from dllm.models.filter import (
    FilterFacts,
    FilterNetwork,
    convert_torch_filter,
    effective_threshold,
    find_filter,
    load_filter,
    published_differences,
    save_filter,
)


def test_probabilities_of_the_filter() -> None:
    c = torch.tensor([[0.99, 0.75, 0.60, 0.90]])
    expected = [0.9478, 0.9698, 0.7773, 0.9781]
    assert network(3.0, -7.0)(c).sigmoid()[0].tolist() == pytest.approx(expected, abs=1e-4)
    padded = network(3.0, -7.0)(torch.tensor([[0.90, 0.85, 0.20]])).sigmoid()
    assert padded[0].tolist() == pytest.approx([0.8808, 0.9852, 0.0794], abs=1e-4)


def test_files_that_are_no_filters(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file and no shipped filter"):
        find_filter(str(tmp_path / "absent"))
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ConfigError, match="is no safetensors file"):
        load_filter(tmp_path / "text")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(ConfigError, match="can't be read as tensors only"):
        convert_torch_filter(tmp_path / "code.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="is no Learn2PD filter"):
        convert_torch_filter(tmp_path / "other.pth")


def test_a_published_file_is_converted_and_probed(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "published.pth")
    converted = convert_torch_filter(tmp_path / "published.pth")
    save_filter(converted, tmp_path / "filter.safetensors")
    again = load_filter(tmp_path / "filter.safetensors")
    c = torch.rand(5, 4)
    assert torch.equal(again(c), network()(c))
    assert published_differences(again) == ["block_length=4: the published filter has 32"]
    wide = FilterNetwork(FilterFacts(block_length=32))
    assert len(published_differences(wide)) == 6


def test_effective_threshold() -> None:
    assert effective_threshold(network(), 0.96) == pytest.approx(0.82)
    assert effective_threshold(network(bias=-50.0), 0.96) == pytest.approx(1.01)


def test_parameters_of_the_published_size() -> None:
    wide = FilterNetwork(FilterFacts(block_length=32))
    assert sum(p.numel() for p in wide.parameters()) == 2112

"""Worked examples of Learn2PD, and the filters it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scripted import built
from small_filters import network
from tiny_decoding import SPEC
from written import Cell, Twin, offsets, step_of

from dllm.errors import ConfigError
from dllm.models.filter import (
    model_signature,
    save_filter,
)
from dllm.step.sampler import Sampler


@pytest.fixture
def diag(tmp_path: Path) -> str:
    save_filter(network(), tmp_path / "diag.safetensors")
    return str(tmp_path / "diag.safetensors")


@pytest.fixture
def nb(tmp_path: Path) -> str:
    save_filter(network(3.0, -7.0), tmp_path / "nb.safetensors")
    return str(tmp_path / "nb.safetensors")


def learn2pd(path: str, *options: str) -> Sampler:
    named = [f"sampler.filter={path}", "sampler.region.block_length=4"]
    return built("sampler=learn2pd", *named, *options)


def accepted_and_committed(
    path: str, row: list[Cell], narrow: str = "refuse"
) -> tuple[set[int], set[int]]:
    step = step_of(learn2pd(path, f"sampler.narrow_blocks={narrow}"), row)
    step.canvas.prompts[0] = replace(step.canvas.prompts[0], gen_length=4)
    decision = step.decide()
    return (
        offsets(decision.marks["accepted"], step.view)[0],
        offsets(decision.commit, step.view)[0],
    )


def test_filter_without_neighbours(diag: str) -> None:
    assert accepted_and_committed(diag, [0.90, 0.50, 0.85, 0.30]) == ({0, 2}, {0, 2})
    assert accepted_and_committed(diag, [0.50, 0.60, 0.40, 0.30]) == (set(), {1})
    assert accepted_and_committed(diag, [Twin(0.99), 0.80, 0.82, 0.30]) == ({2}, {2})
    assert accepted_and_committed(diag, [Twin(0.99), 0.81, 0.817, 0.8179]) == ({3}, {3})


def test_acceptance_is_strict(tmp_path: Path) -> None:
    """A filter whose every answer is one half."""
    half = network(bias=0.0)
    torch.nn.init.zeros_(half.linear2.weight)
    save_filter(half, tmp_path / "half.safetensors")
    for threshold, accepted in ((0.5, set()), (0.4999, {0, 1, 2, 3})):
        rule = learn2pd(str(tmp_path / "half.safetensors"), f"sampler.accept_threshold={threshold}")
        step = step_of(rule, [0.9, 0.5, 0.8, 0.3])
        assert offsets(step.decide().marks["accepted"], step.view)[0] == accepted


def test_filter_sees_the_confidence_of_decided_neighbours(nb: str) -> None:
    assert accepted_and_committed(nb, [Twin(0.99), 0.75, 0.60, 0.90]) == ({1, 3}, {1, 3})


def test_a_block_cut_short_is_padded(nb: str) -> None:
    assert accepted_and_committed(nb, [0.90, 0.85, 0.20], narrow="pad") == ({1}, {0, 1})


def test_filter_of_another_block_length(diag: str) -> None:
    for block in (8, 2):
        rule = learn2pd(diag, f"sampler.region.block_length={block}")
        with pytest.raises(
            ConfigError, match=f"block_length=4, the region has block_length={block}"
        ):
            rule.validate(8)
    learn2pd(diag, "sampler.region.block_length=2", "sampler.narrow_blocks=pad").validate(8)


def test_filter_of_another_model(tmp_path: Path) -> None:
    save_filter(network(model="llada 9x9, vocabulary 9"), tmp_path / "filter.safetensors")
    rule = learn2pd(str(tmp_path))
    with pytest.raises(
        ConfigError, match="trained for llada 9x9, vocabulary 9, the model is llada"
    ):
        rule.check_model(SPEC)
    save_filter(network(model=model_signature(SPEC)), tmp_path / "filter.safetensors")
    learn2pd(str(tmp_path)).check_model(SPEC)


def test_a_filter_is_read_once_and_anew_when_it_changes(diag: str) -> None:
    """A sampler is built again for the texts in its region and for every part that is bound."""
    first = learn2pd(diag)
    assert replace(first).network is learn2pd(diag).network is first.network  # type: ignore[attr-defined]
    save_filter(network(5.0), Path(diag))
    again = learn2pd(diag)
    assert again.network is not first.network  # type: ignore[attr-defined]


def test_the_plain_threshold_that_a_filter_amounts_to(diag: str) -> None:
    """What the filter without neighbours accepts begins between 0.817 and 0.8179 (see above)."""
    assert learn2pd(diag).control() == ("threshold", {"threshold": 0.82})

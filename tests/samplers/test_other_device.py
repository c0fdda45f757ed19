"""Every rule and every cache decodes the same where the model is not on the host."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_device import moved, pretended
from test_battery import AUTOREGRESSIVE, CACHES, NAMES, Fitting, _first_with, _model, prompts

from dllm.forward.predictor import Predictor


DRAWN = ("random", "dream_origin", "diffusion_gemma", "dystruct", "encoder")
"""Rules that draw, and the cache that goes with one."""
DEVICES = ("pretended", pytest.param("cuda", marks=pytest.mark.gpu))


@contextmanager
def elsewhere(device: str, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What moves a model to the device; other tensors go there by their own."""
    with pretended(patch) if device == "pretended" else nullcontext():
        yield moved if device == "pretended" else lambda model: model.to(device)


def compared(name: str, fitting: Fitting, device: str, patch: pytest.MonkeyPatch) -> None:
    wanted = prompts(4, 8, 11)
    here = fitting.decode(wanted, batch_size=fitting.batch)
    with elsewhere(device, patch) as move:
        model, other = (
            Predictor(move(deepcopy(_model(spec)))) for spec in (fitting.spec, AUTOREGRESSIVE)
        )
        there = fitting.decode(wanted, model, other, batch_size=fitting.batch)
        if device == "cuda":
            again = fitting.decode(wanted, model, other, batch_size=fitting.batch)
            assert [one.tokens for one in again] == [one.tokens for one in there]
    if device == "cuda" and name in DRAWN:
        return  # a GPU's generators give other numbers
    for one, two in zip(here, there, strict=True):
        assert one.failure is None and two.failure is None
        assert one.tokens == two.tokens and one.cost.nfe == two.cost.nfe


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("supplied")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_every_rule(name: str, device: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(name, Fitting(name, folder), device, monkeypatch)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", CACHES)
def test_every_cache(
    policy: str, device: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared(policy, _first_with(policy, folder), device, monkeypatch)


def test_operands_on_both_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere("pretended", monkeypatch) as _, pytest.raises(AssertionError, match="add_: "):
        torch.ones(2, device="meta").add_(torch.ones(2))

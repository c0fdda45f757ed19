"""What the bench of the forward measures, and where it can't."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dllm.bench import forward
from dllm.errors import ConfigError
from dllm.forward import graphs
from dllm.models.loading import dummy_model


def test_every_product_of_the_layers_is_timed_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(forward.SPEC, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8)
    monkeypatch.setattr(forward, "SPEC", replace(small, d_ff=24, vocab_size=4096))
    monkeypatch.setattr(forward, "ROWS", (3,))
    found = list(forward.measure(repeats=1))
    assert [speed.dtype for speed in found] == [torch.float32, torch.bfloat16]
    per_layer = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 24
    attention = 2 * 2 * 3 * 8  # of one row, with 3 keys and 3 values per head
    assert found[0].flops == 2 * 3 * 2 * (per_layer + attention)
    assert found[0].bytes == 4 * 2 * per_layer


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device=cuda: no such device"):
        next(forward.measure("cuda"))


def test_the_shape_on_a_gpu_is_llada_8b(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert forward.spec_for("cuda").n_layers == 32


def test_layers_are_recorded_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []

    def record(compute: Callable[[], Tensor], pool: None) -> tuple[Callable[[], None], Tensor]:
        recorded.append(0)
        return lambda: recorded.append(1), compute()

    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(graphs.Memory, "new", lambda: None)
    small = replace(forward.SPEC, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8)
    model = dummy_model(replace(small, d_ff=24, vocab_size=40))
    run = forward._layers(model, 3, recorded=True)
    assert recorded == [0, 1]
    run()
    assert recorded == [0, 1, 1]

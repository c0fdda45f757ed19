"""Memory that tensors take: what is counted, and that what is computed is what is measured."""

from dataclasses import replace

import pytest
import torch

from dllm.bench import memory
from dllm.bench.caches import SPEC
from dllm.models.loading import dummy_model
from dllm.step.canvas import Prompt


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROMPT", 64)
    monkeypatch.setattr(memory, "GENERATION", 32)


SMALL = replace(
    SPEC, vocab_size=9_000, d_model=32, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=16, d_ff=64
)


def test_what_is_alive_together_is_counted_once_and_the_model_not_at_all() -> None:
    model = torch.nn.Linear(100, 100, bias=False).requires_grad_(False)
    x = torch.ones(100, 100)

    def call() -> None:
        model(x.view(100, 100))  # 40,000 bytes, gone at once
        y = x + 1
        y[:50].add_(1)
        del y
        both = x + 1, x + 2
        assert len(both) == 2

    # The given tensor counts once it is touched.
    assert memory.peak(call, model) == 3 * 40_000


def test_the_computed_peak_of_a_first_step_is_the_measured_one(small: None) -> None:
    model = dummy_model(SMALL)
    assert model.head is not None
    model.head.weight[2:].mul_(60)
    prompts = [Prompt("a", tuple(range(2, 66)), 32)]
    lines = {line.name: line.values for line in memory.measured("m", model, prompts)}
    assert {"m, cache=none", "m, cache=prefix", "m, cache=dual", "m, cache=window"} <= set(lines)
    for cache in memory.PLAIN:
        ours, store, plain = memory.computed(SMALL, cache, torch.float32)
        values = lines[f"m, cache={cache}"]
        assert values["of it store, MiB"] * memory.MIB == store
        assert values["engine, MiB"] * memory.MIB == pytest.approx(ours, rel=0.1)
        assert values["plain loop, MiB"] * memory.MIB == pytest.approx(plain, rel=0.1)
        share = values["activations, of the plain loop's"]
        assert share == pytest.approx((ours - store) / (plain - store), rel=0.2)


def test_llada_8b_needs_no_memory_to_be_computed() -> None:
    ours, store, plain = memory.computed(memory.llada_8b(), "dual")
    assert store == (memory.PROMPT + memory.GENERATION) * 2 * 32 * 4096 * 2
    assert store < ours < plain

"""The plain loops of the bench against the engine, and loops that differ from it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dllm.bench import naive
from dllm.errors import RunError
from dllm.models.loading import dummy_model
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt


@pytest.fixture(scope="module")
def model() -> Transformer:
    spec = replace(naive.SPEC, vocab_size=60, d_model=32, n_layers=2, n_heads=2, n_kv_heads=2)
    model = dummy_model(replace(spec, head_dim=16, d_ff=64))
    assert model.head is not None
    model.head.weight[2:].mul_(60)
    return model


PROMPTS = [Prompt("a", tuple(range(5, 17)), 64), Prompt("b", tuple(range(20, 50)), 32)]


def test_every_plain_loop_decodes_what_the_engine_decodes(model: Transformer) -> None:
    found = {against.name: against for against in naive.measure(model, PROMPTS, repeats=1)}
    assert found.keys() == naive.LOOPS.keys()
    static = found["LLaDA, one token per step"].forwards
    assert static == 96
    assert all(
        3 <= against.forwards < static
        for name, against in found.items()
        if not name.startswith("LLaDA")
    )


def test_a_loop_that_decodes_otherwise_is_not_timed(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = naive.Loop(["sampler=threshold"], naive.confident(naive.one))
    monkeypatch.setattr(naive, "LOOPS", {"other": wrong})
    with pytest.raises(RunError, match="other: the engine and the plain loop"):
        next(naive.measure(model, PROMPTS, repeats=1))


def test_a_plain_loop_that_predicts_the_mask_token_ends(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def masks(model: Transformer, x: Tensor, first: int, last: int, exchange: object) -> Tensor:
        logits = torch.zeros(last - first, model.spec.vocab_size)
        logits[:, model.spec.mask_id] = 9.0
        return logits

    monkeypatch.setattr(naive, "all_logits", masks)
    with pytest.raises(RunError, match="no way out of a predicted mask token"):
        naive.decode(model, (5, 6), 32, naive.LOOPS["Fast-dLLM threshold"])

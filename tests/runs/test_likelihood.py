"""Likelihoods against exact values: causal models, and models that look at nothing."""

import math

import pytest
import torch

from dllm.config import build, compose
from dllm.models.hub import open_model
from dllm.runs.likelihood import Estimator, stratified


def estimator(model, draws: int = 16) -> Estimator:
    return Estimator(model=model, draws=draws, batch_size=4, seed=0)


@pytest.fixture(scope="module", params=["tiny-llada", "tiny-sdar", "tiny-wedlm"])
def opened(request: pytest.FixtureRequest):
    return open_model(build(compose([f"model={request.param}"]).model, "model"))


def test_a_right_answer_is_likelier(opened) -> None:
    model, tokenizer = opened
    prompt = tokenizer.chat("copy: Ada Bob Mia")
    right, wrong = (
        estimator(model).of(prompt, tokenizer.encode(text))
        for text in ("Ada Bob Mia", "Tom Tom Leo")
    )
    assert right.value > wrong.value + 5
    assert -1 < right.value <= 0


def test_an_estimate_depends_on_nothing_else(opened) -> None:
    model, tokenizer = opened
    prompt, answer = tokenizer.chat("reverse: Ada Bob"), tokenizer.encode("Bob Ada")
    alone = estimator(model).of(prompt, answer)
    other = Estimator(model=model, draws=16, batch_size=16, seed=0).of(prompt, answer)
    assert alone.value == pytest.approx(other.value, abs=1e-4)
    assert alone.error == pytest.approx(other.error, abs=1e-4)


def test_a_causal_model_is_exact() -> None:
    model, tokenizer = open_model(build(compose(["model=tiny-wedlm-ar"]).model, "model"))
    prompt, answer = tokenizer.chat("copy: Ada Bob"), tokenizer.encode("Ada Tom")
    found = estimator(model).of(prompt, answer)
    tokens = torch.tensor([prompt + answer])
    rows = len(tokens[0])
    with torch.inference_mode():
        states = model.hidden(tokens, mask=torch.ones(rows, rows).tril().bool()[None, None])
        scores = model.logits(states)[0].log_softmax(-1)
    wanted = sum(
        float(scores[len(prompt) + i - model.spec.logit_shift, token])
        for i, token in enumerate(answer)
    )
    assert model.spec.logit_shift == 1
    assert found.error == 0
    assert found.value == pytest.approx(wanted, abs=1e-4)


def test_a_model_that_knows_nothing_is_exact_whatever_is_drawn(monkeypatch) -> None:
    model, tokenizer = open_model(build(compose(["model=tiny-llada"]).model, "model"))
    vocabulary = model.spec.vocab_size
    monkeypatch.setattr(model, "logits", lambda states: torch.zeros(len(states), vocabulary))
    found = estimator(model).of(tokenizer.chat("copy: Ada"), tokenizer.encode("Ada Bob Mia"))
    length = len(tokenizer.encode("Ada Bob Mia"))
    assert found.value == pytest.approx(-length * math.log(vocabulary), rel=1e-5)
    assert found.error == pytest.approx(0.0, abs=1e-4)


def test_draws_are_stratified() -> None:
    counts = stratified(8, 16, torch.Generator().manual_seed(1))
    assert sorted(counts.tolist()) == sorted([*range(1, 9), *range(1, 9)])
    assert all(1 <= c <= 3 for c in stratified(3, 7, torch.Generator()).tolist())


def test_one_draw_has_no_error() -> None:
    with pytest.raises(ValueError, match="draws=1"):
        Estimator(model=None, draws=1, batch_size=1, seed=0)  # type: ignore[arg-type]

"""Accuracy per kind as training and model cards measure it."""

import dataclasses

import torch
from small_model import SPEC

from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.models.hub import ModelOptions, open_model
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt
from dllm.tasks.suite import EmbeddedSuite
from dllm.training import evaluate
from dllm.training.evaluate import accuracy, one_per_step, response_text
from dllm.training.optimizers import initialise


def model() -> Transformer:
    made = Transformer(SPEC).eval()
    initialise(made, seed=3)
    generator = torch.Generator().manual_seed(4)
    for layer in made.layers:  # the trained parts start at zero: give them a say
        layer.attn.o.weight.data.normal_(std=0.3, generator=generator)
        layer.mlp.down.weight.data.normal_(std=0.3, generator=generator)
    return made


def test_each_step_commits_the_most_confident_proposal() -> None:
    network, prompt, length = model(), (2, 100, 101, 3), 5
    canvas = torch.tensor([[*prompt, *[SPEC.mask_id] * length]])
    for _ in range(length):
        logits = network.logits(network.hidden(canvas))[0, len(prompt) :]
        logits[:, SPEC.mask_id] = -torch.inf
        confidence, proposal = logits.softmax(-1).max(-1)
        open_positions = canvas[0, len(prompt) :] == SPEC.mask_id
        best = int(torch.where(open_positions, confidence, -1.0).argmax())
        canvas[0, len(prompt) + best] = proposal[best]
    decoder = Decoder(Predictor(network), one_per_step(SPEC, length), NoCache())
    (outcome,) = decoder.decode([Prompt("a", prompt, length)])
    assert list(outcome.tokens) == canvas[0, len(prompt) :].tolist()


def test_block_causal_models_decode_their_own_blocks() -> None:
    spec = dataclasses.replace(SPEC, attention="block_causal", block_size=4)
    canvas = one_per_step(spec, 8).layout(Prompt("a", (2, 3, 4), 8), spec)
    assert canvas.attention_block == 4


def test_the_response_ends_at_the_first_eos(tokenizer) -> None:
    ids = tokenizer.encode("Mia Tom").ids
    assert response_text([*ids, 1, *ids], SPEC, tokenizer) == "Mia Tom"
    assert response_text(ids, SPEC, tokenizer) == "Mia Tom"
    assert response_text([1], SPEC, tokenizer) == ""


def test_accuracy_is_reported_for_each_kind_drawn(tokenizer) -> None:
    suite = EmbeddedSuite(kinds=["copy", "latin"])
    network = model().train()
    scores = accuracy(network, tokenizer, suite, suite.samples("test", 6))
    assert scores == {"copy": 0.0, "latin": 0.0}
    assert network.training


def test_an_embedded_model_scores_what_it_can(tokenizer) -> None:
    network, _ = open_model(ModelOptions("tiny-llada"))
    suite = EmbeddedSuite(kinds=["copy", "reverse"])
    scores = accuracy(network, tokenizer, suite, suite.samples("test", 8), batch_size=3)
    assert scores == {"copy": 1.0, "reverse": 1.0}


def test_every_kind_has_a_region_that_holds_its_answers(tokenizer, monkeypatch) -> None:
    network, _ = open_model(ModelOptions("tiny-llada"))
    suite = EmbeddedSuite(kinds=["copy", "arithmetic"], min_terms=7, max_terms=7)
    samples = suite.samples("test", 4)
    scores = accuracy(network, tokenizer, suite, samples)
    assert scores == {"copy": 1.0, "arithmetic": 1.0}
    monkeypatch.setattr(evaluate, "REGIONS", {})
    scores = accuracy(network, tokenizer, suite, samples)
    assert scores == {"copy": 1.0, "arithmetic": 0.0}

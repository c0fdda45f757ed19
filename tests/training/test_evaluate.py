"""One-token-per-step decoding of the training loop, and accuracy per kind."""

import torch
from small_model import SPEC

from dllm.models.transformer import Transformer
from dllm.tasks.suite import EmbeddedSuite
from dllm.training.evaluate import accuracy, decode, response_text
from dllm.training.optimizers import initialise


def model() -> Transformer:
    made = Transformer(SPEC).eval()
    initialise(made, seed=3)
    generator = torch.Generator().manual_seed(4)
    for layer in made.layers:  # the trained parts start at zero: give them a say
        layer.attn.o.weight.data.normal_(std=0.3, generator=generator)
        layer.mlp.down.weight.data.normal_(std=0.3, generator=generator)
    return made


PROMPTS = [[2, 100, 101, 3], [2, 50, 51, 52, 53, 54, 3], [2, 700, 3]]


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    network = model()
    together = decode(network, PROMPTS, 6)
    alone = [decode(network, [prompt], 6)[0] for prompt in PROMPTS]
    assert together.tolist() == [row.tolist() for row in alone]


def test_each_step_commits_the_most_confident_proposal() -> None:
    network, prompt, length = model(), PROMPTS[0], 5
    canvas = torch.tensor([prompt + [SPEC.mask_id] * length])
    for _ in range(length):
        logits = network.logits(network.hidden(canvas))[0, len(prompt) :]
        confidence, proposal = logits.softmax(-1).max(-1)
        open_positions = canvas[0, len(prompt) :] == SPEC.mask_id
        best = int(torch.where(open_positions, confidence, -1.0).argmax())
        canvas[0, len(prompt) + best] = proposal[best]
    assert decode(network, [prompt], length)[0].tolist() == canvas[0, len(prompt) :].tolist()


def test_the_response_ends_at_the_first_eos(tokenizer) -> None:
    ids = tokenizer.encode("Mia Tom").ids
    assert response_text([*ids, 1, *ids], model(), tokenizer) == "Mia Tom"
    assert response_text(ids, model(), tokenizer) == "Mia Tom"
    assert response_text([1], model(), tokenizer) == ""


def test_accuracy_is_reported_for_each_kind_drawn(tokenizer) -> None:
    suite = EmbeddedSuite(kinds=["copy", "latin"])
    network = model().train()
    scores = accuracy(network, tokenizer, suite, suite.samples("test", 6), gen_length=8)
    assert scores == {"copy": 0.0, "latin": 0.0}
    assert network.training

"""A share of `scripts.fuzz`, and what its invariants notice."""

from dataclasses import replace

import pytest
from tiny_decoding import SPEC, random_model, sampler

from dllm.bench.fuzz import contradictions, difference, fuzz
from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome


def test_a_share_of_the_compositions() -> None:
    decoded = refused = 0
    for case, reason, problem in fuzz(30, seed=18):
        assert problem is None, f"{case.options}: {problem}"
        decoded += reason is None
        refused += reason is not None
    assert decoded > 3 and refused > 3


@pytest.fixture(scope="module")
def decoded() -> tuple[Outcome, Prompt, Decoder]:
    prompt = Prompt("one", (5, 6, 7), 8)
    rule = sampler("sampler=threshold", "sampler.threshold=0.4")
    setting = Decoder(Predictor(random_model()), rule, NoCache(), record=True)
    (outcome,) = setting.decode([prompt])
    return outcome, prompt, setting


def test_what_is_whole_contradicts_nothing(decoded: tuple[Outcome, Prompt, Decoder]) -> None:
    assert list(contradictions(*decoded)) == []


@pytest.mark.parametrize(
    ("token", "words"),
    [(SPEC.mask_id, "a mask is left"), (SPEC.vocab_size, "outside the vocabulary")],
)
def test_tokens_that_cannot_be(
    decoded: tuple[Outcome, Prompt, Decoder], token: int, words: str
) -> None:
    outcome, *rest = decoded
    broken = replace(outcome, tokens=(token, *outcome.tokens[1:]))
    assert any(words in found for found in contradictions(broken, *rest))


def test_a_second_commit_and_endless_forwards(decoded: tuple[Outcome, Prompt, Decoder]) -> None:
    outcome, *rest = decoded
    assert outcome.trace is not None
    first = outcome.trace.steps[0]
    twice = replace(outcome.trace, steps=[first, *outcome.trace.steps])
    found = list(contradictions(replace(outcome, trace=twice), *rest))
    assert any("committed twice" in problem for problem in found)
    cost = replace(outcome.cost, forwards=outcome.cost.forwards.copy())
    cost.forwards[next(iter(cost.forwards))] = 1000
    found = list(contradictions(replace(outcome, cost=cost), *rest))
    assert any("1000 forwards, more than" in problem for problem in found)
    assert difference({"one": outcome}, {"one": replace(outcome, cost=cost)}) is not None
    assert difference({"one": outcome}, {}) == "one is missing"

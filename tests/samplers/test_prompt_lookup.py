"""Prompt lookup: drafts are copied from the text, what comes out is the model's own decoding."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_decoding import SPEC, decode, ragged_prompts, random_model, sampler

from dllm.cache.causal import CausalCache
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.outcome import Outcome
from dllm.step.sampler import Sampler
from samplers.prompt_lookup import PromptLookup


AUTOREGRESSIVE = replace(SPEC, attention="causal", logit_shift=1)
MODEL = random_model(AUTOREGRESSIVE, seed=3)


def lookup(*options: str) -> PromptLookup:
    rule = sampler(
        "sampler=prompt_lookup",
        "sampler.region.block_length=null",
        *[f"sampler.{option}" for option in options],
    )
    assert isinstance(rule, PromptLookup)
    return rule


def answers(rule: Sampler, **options) -> dict[str, Outcome]:
    decoder = Decoder(Predictor(MODEL), rule, CausalCache(), **options)
    return {outcome.sample_id: outcome for outcome in decoder.decode(ragged_prompts())}


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        ([5, 6, 7, 8, 5, 6], [7, 8]),  # the longest n-gram
        ([5, 9, 6, 5, 6, 7, 6], [5, 6]),  # else a shorter one, where it is first
        ([5, 6, 7], []),
        ([5, 5], [5]),
        ([5], []),
    ],
)
def test_drafts(text: list[int], draft: list[int]) -> None:
    rule = lookup("draft_length=2", "ngram=2")
    assert rule._draft(np.array(text)).tolist() == draft


@pytest.mark.parametrize("batch_size", [1, 4])
def test_greedy_output_is_the_model_s(batch_size: int) -> None:
    plain = answers(sampler("sampler=left_to_right", "sampler.region.block_length=null"))
    found = answers(lookup("ngram=1"), batch_size=batch_size, record=True)
    for name, outcome in plain.items():
        assert found[name].tokens == outcome.tokens
    saved = sum(plain[name].cost.nfe - found[name].cost.nfe for name in plain)
    # A prefill belongs to either.
    steps = [step for one in found.values() if one.trace for step in one.trace.steps]
    accepted = sum(len(step.marks.get("accepted", [])) for step in steps)
    assert saved == accepted > 0


def test_only_for_autoregressive_models() -> None:
    with pytest.raises(ConfigError, match="sampler=prompt_lookup verifies by next tokens"):
        decode(lookup(), ragged_prompts(1))

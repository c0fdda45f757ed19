"""DEER with the embedded models: the verifier's own greedy tokens, and where bfloat16 departs."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_decoding import random_model, sampler

from dllm.cache.causal import CausalCache
from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.engine.setting import Served
from dllm.forward.predictor import Predictor
from dllm.models.config_reader import Overrides
from dllm.models.hub import EMBEDDED
from dllm.models.loading import load_model
from dllm.models.tokenizers import Tokenizer, load_tokenizer
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.sampler import Sampler
from dllm.tasks.suite import EmbeddedSuite


WHOLE = "sampler.region.block_length=null"
GEN_LENGTH = 32
SMALL = {"d_model": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "head_dim": 16, "d_ff": 64}
"""What is drafted at random need not be drafted at length."""


@cache
def model(name: str, dtype: torch.dtype = torch.float32) -> Transformer:
    if name == "random":
        return random_model(replace(load_model(EMBEDDED / "tiny-llada").spec, **SMALL), seed=1)
    overrides = Overrides(mask_id=0) if name == "tiny-ar" else None
    return load_model(EMBEDDED / name, dtype, overrides=overrides)


@cache
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder, "plain")


def questions(count: int) -> list[Prompt]:
    chat = tokenizer(EMBEDDED / "tiny-ar").chat
    samples = EmbeddedSuite().samples("test", count, seed=3)
    return [Prompt(sample.id, tuple(chat(sample.prompt)), GEN_LENGTH) for sample in samples]


def by_id(decoder: Decoder, prompts: Sequence[Prompt]) -> dict[str, tuple[int, ...]]:
    found: dict[str, Outcome] = {outcome.sample_id: outcome for outcome in decoder.decode(prompts)}
    assert len(found) == len(prompts)
    return {name: outcome.tokens for name, outcome in found.items()}


def alone(
    prompts: Sequence[Prompt],
    dtype: torch.dtype = torch.float32,
    batch_size: int = 50,
    eos: EosPolicy = EosPolicy.NONE,
) -> dict[str, tuple[int, ...]]:
    rule = sampler("sampler=left_to_right", WHOLE)
    verifier = Predictor(model("tiny-ar", dtype))
    decoder = Decoder(verifier, rule, CausalCache(), eos=eos, batch_size=batch_size)
    return by_id(decoder, prompts)


def drafted(
    prompts: Sequence[Prompt],
    drafter: str,
    length: int,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 50,
    eos: EosPolicy = EosPolicy.NONE,
) -> dict[str, tuple[int, ...]]:
    rule: Sampler = sampler("sampler=deer", WHOLE, f"sampler.draft_length={length}")
    if drafter == "tiny-deer":
        rule = rule.with_tokenizer(tokenizer(EMBEDDED / drafter))
    served = {"verifier": Served(Predictor(model("tiny-ar", dtype)), CausalCache())}
    reading = Predictor(model(drafter))
    decoder = Decoder(reading, rule, NoCache(), eos=eos, batch_size=batch_size, others=served)
    return by_id(decoder, prompts)


@pytest.mark.parametrize("length", [4, 32])
@pytest.mark.parametrize("drafter", ["tiny-deer", "random"])
def test_greedy_tokens_are_the_verifier_s(drafter: str, length: int) -> None:
    prompts = questions(11)
    assert drafted(prompts, drafter, length, batch_size=11) == alone(prompts, batch_size=11)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 4, 8, 32])
@pytest.mark.parametrize("drafter", ["tiny-deer", "random"])
def test_three_hundred_prompts(drafter: str, length: int) -> None:
    """Whole answers, up to their end tokens."""
    prompts = questions(300)
    found = drafted(prompts, drafter, length, eos=EosPolicy.CUT)
    assert found == answers()
    assert len({len(tokens) for tokens in found.values()}) > 5


@cache
def answers() -> dict[str, tuple[int, ...]]:
    return alone(questions(300), eos=EosPolicy.CUT)


def test_bfloat16_departs_at_near_ties_only() -> None:
    """A verification of many rows rounds otherwise than one of a single row: where the tokens part,
    the verifier's first two choices are as good as equal."""
    prompts = questions(33)
    plain = alone(prompts, torch.bfloat16, batch_size=11)
    found = drafted(prompts, "tiny-llada", 8, torch.bfloat16, batch_size=11)
    exact = model("tiny-ar")
    for prompt in prompts:
        one, other = plain[prompt.sample_id], found[prompt.sample_id]
        parted = [i for i in range(GEN_LENGTH) if one[i] != other[i]]
        if parted:
            tokens = torch.tensor([[*prompt.tokens, *one[: parted[0]]]])
            count = tokens.shape[1]
            causal = torch.ones(1, 1, count, count, dtype=torch.bool).tril()
            with torch.inference_mode():
                hidden = exact.hidden(tokens, torch.arange(count)[None], causal, None)
                first, second = exact.logits(hidden[:, -1]).topk(2).values[0].tolist()
            assert first - second < 0.1, f"{prompt.sample_id} at {parted[0]}"

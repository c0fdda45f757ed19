"""Reasons why a sampler, a cache and a model do not go together."""

from dataclasses import replace

import pytest
from scripted import built
from tiny_decoding import SPEC, decode, ragged_prompts, sampler

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.legality import needs, refusals
from dllm.errors import ConfigError


def cache(name: str):
    return build(compose([f"cache={name}"]).cache, "cache")


def test_a_plain_rule_fits_everywhere() -> None:
    for policy in ("none", "prefix", "dual"):
        assert refusals(sampler("sampler=threshold"), cache(policy), SPEC) == []
    assert refusals(sampler("sampler=credit"), cache("dual"), SPEC) == []


@pytest.mark.parametrize("policy", ["prefix", "dual"])
def test_history_under_a_cache_that_makes_it_stale(policy: str) -> None:
    (reason,) = refusals(sampler("sampler=klass"), cache(policy), SPEC)
    assert reason.startswith("sampler=Klass compares a position's predictions")
    assert reason.endswith("use cache=none")


def test_twins_need_full_attention_and_no_cache() -> None:
    wino = sampler("sampler=wino")
    assert needs(wino) == {"twins"}
    assert refusals(wino, NoCache(), SPEC) == []
    (reason,) = refusals(wino, cache("dual"), SPEC)
    assert "masked twins in every forward" in reason
    (reason,) = refusals(wino, NoCache(), replace(SPEC, logit_shift=1))
    assert reason.endswith("full with a shift of 1")


def test_a_window_and_its_cache_are_refreshed_together() -> None:
    window = built("sampler=window", "sampler.refresh_cycle=16")
    assert refusals(built("sampler=window"), cache("window"), SPEC) == []
    assert refusals(window, NoCache(), SPEC) == []
    (reason,) = refusals(window, cache("window"), SPEC)
    assert reason.startswith("sampler.refresh_cycle=16 and cache.refresh_cycle=32 differ")
    around = built("sampler=r2dllm", "sampler@sampler.base=window")
    assert refusals(around, cache("window"), SPEC) == []


def test_attention_of_the_cache() -> None:
    causal = replace(SPEC, attention="causal")
    (reason,) = refusals(sampler("sampler=threshold"), cache("dual"), causal)
    assert reason == "cache=DualCache needs full attention; the model's is causal"


def test_rules_defined_for_one_sequence() -> None:
    single = sampler("sampler=fastdllm_dream", "sampler.region.block_length=null")
    assert refusals(single, NoCache(), SPEC) == []
    (reason,) = refusals(single, NoCache(), SPEC, batch_size=4)
    assert reason == "batch_size=4: FastDLLMDream is defined for batch_size=1"


def test_the_loop_refuses_before_any_forward() -> None:
    class Untouchable:
        spec = SPEC

    single = sampler(
        "sampler=fastdllm_dream", "sampler.region.block_length=null", "sampler.steps=1"
    )
    with pytest.raises(ConfigError, match="batch_size=2: FastDLLMDream"):
        decode(single, ragged_prompts(2), Untouchable(), batch_size=2)

"""Reasons why a sampler, a cache and a model do not go together."""

from dataclasses import replace

import pytest
from scripted import built
from tiny_decoding import MASK, SPEC, decode, ragged_prompts, sampler

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.legality import needs, refusals
from dllm.engine.setting import Setting
from dllm.errors import ConfigError
from dllm.step.canvas import Prompt


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


def test_every_reason_is_said() -> None:
    class Untouchable:
        spec = replace(SPEC, attention="causal")

    single = sampler("sampler=fastdllm_dream", "sampler.region.block_length=null")
    setting = Setting(Untouchable(), single, cache("dual"), batch_size=2)  # type: ignore[arg-type]
    reasons = refusals(single, cache("dual"), Untouchable.spec, batch_size=2)
    with pytest.raises(ConfigError) as error:
        setting.check_parts()
    assert len(reasons) > 1 and str(error.value) == "; ".join(reasons)


def test_the_loop_refuses_before_any_forward() -> None:
    class Untouchable:
        spec = SPEC

    single = sampler(
        "sampler=fastdllm_dream", "sampler.region.block_length=null", "sampler.steps=1"
    )
    with pytest.raises(ConfigError, match="batch_size=2: FastDLLMDream"):
        decode(single, ragged_prompts(2), Untouchable(), batch_size=2)


@pytest.mark.parametrize(
    ("options", "policy", "attention", "reason"),
    [
        ("learn2pd sampler.filter=tiny-llada", "d2cache", "full", "every position of the block"),
        ("hierarchy_remask", "dkv", "full", "every position of the block"),
        ("llada2_edit sampler/region=fixed", "dkv", "full", "every position of the block"),
        ("adablock", "d2cache", "full", "in a block's first step"),
        ("dystruct", "dual", "full", "positions outside the block"),
        ("low_confidence sampler.cfg_scale=1.0", "dual", "full", "canvases without the prompt"),
        ("low_confidence sampler.cfg_scale=1.0", "block", "block_causal", "without the prompt"),
        ("eotp sampler.base.cfg_scale=1.0", "prefix", "full", "canvases without the prompt"),
        ("low_confidence sampler.cfg_scale=1.0", "d2cache", "full", "canvases without the prompt"),
        ("freedave", "dllm_cache", "full", "drafts computed beside"),
        ("freedave", "d2cache", "full", "drafts computed beside"),
    ],
)
def test_what_a_rule_reads_is_computed(
    options: str, policy: str, attention: str, reason: str
) -> None:
    rule = built(*f"sampler={options}".split())
    spec = replace(SPEC, attention=attention, block_size=4)
    found = [line for line in refusals(rule, cache(policy), spec) if reason in line]
    assert len(found) == 1 and found[0].endswith("use cache=none")
    assert not [line for line in refusals(rule, NoCache(), spec) if reason in line]


def test_drafts_under_dkv_need_unshifted_rows() -> None:
    rule, shifted = built("sampler=freedave"), replace(SPEC, logit_shift=1)
    assert refusals(rule, cache("dkv"), SPEC) == []
    (reason,) = refusals(rule, cache("dkv"), shifted)
    assert "drafts computed beside" in reason


def test_drafts_stand_in_for_no_guidance() -> None:
    with pytest.raises(ConfigError, match="LowConfidence is guided"):
        built("sampler=freedave", "sampler.base.cfg_scale=1.0")


def test_a_mask_inside_a_prompt_is_refused() -> None:
    prompt = Prompt("gap", (5, MASK, 7), 4)
    with pytest.raises(ConfigError, match="sample gap: position 1 of the prompt holds the mask"):
        decode(sampler("sampler=threshold"), [prompt])

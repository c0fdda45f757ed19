"""Reasons why a sampler, a cache and a model do not go together."""

import re
from dataclasses import dataclass, fields, replace

import pytest
from scripted import built
from tiny_decoding import MASK, NOISE, SPEC, decode, ragged_prompts, sampler

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.legality import needs, other_refusals, refusals
from dllm.engine.setting import Setting
from dllm.errors import ConfigError
from dllm.models.spec import NO_MASK
from dllm.step.canvas import Prompt
from dllm.step.sampler import Sampler
from samplers.parts.wrapping import Wrapper


def cache(name: str):
    return build(compose([f"cache={name}"]).cache, "cache")


def test_a_plain_rule_fits_everywhere() -> None:
    for policy in ("none", "prefix", "dual"):
        assert refusals(sampler("sampler=threshold"), cache(policy), SPEC) == []
    assert refusals(sampler("sampler=credit"), cache("dual"), SPEC) == []


def test_a_sampler_without_a_rule() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Idle(Sampler):
        pass

    idle = Idle(**{f.name: getattr(sampler("sampler=threshold"), f.name) for f in fields(Idle)})
    (reason,) = refusals(idle, NoCache(), SPEC)
    assert reason == "sampler=Idle says nowhere what it commits: it needs a method choose"
    with pytest.raises(ConfigError, match="a method choose"):
        decode(idle, ragged_prompts())


@pytest.mark.parametrize("policy", ["prefix", "dual"])
def test_history_under_a_cache_that_makes_it_stale(policy: str) -> None:
    (reason,) = refusals(sampler("sampler=klass"), cache(policy), SPEC)
    assert reason == (
        "sampler=Klass compares a position's predictions of successive steps, which "
        f"cache={policy.capitalize()}Cache makes stale; use cache=none"
    )


def test_twins_need_full_attention_and_no_cache() -> None:
    wino = sampler("sampler=wino")
    assert needs(wino) == {"twins"}
    assert refusals(wino, NoCache(), SPEC) == []
    (reason,) = refusals(wino, cache("dual"), SPEC)
    assert reason == "sampler=Wino needs masked twins in every forward; use cache=none"
    (reason,) = refusals(wino, NoCache(), replace(SPEC, logit_shift=1))
    assert reason == (
        "sampler=Wino needs full attention and unshifted logits; the model's are full with a "
        "shift of 1"
    )


def test_a_window_and_its_cache_are_refreshed_together() -> None:
    window = built("sampler=window", "sampler.refresh_cycle=16")
    assert refusals(built("sampler=window"), cache("window"), SPEC) == []
    assert refusals(window, NoCache(), SPEC) == []
    (reason,) = refusals(window, cache("window"), SPEC)
    assert reason == (
        "sampler.refresh_cycle=16 and cache.refresh_cycle=32 differ: sampler=Window and "
        "cache=WindowCache are refreshed by the same steps"
    )
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


WHOLE_BLOCK = "reads every position of the block in every step"
GUIDED = "needs canvases without the prompt (cfg_scale > 0) computed beside it"


@pytest.mark.parametrize(
    ("options", "policy", "attention", "reason"),
    [
        ("learn2pd sampler.filter=tiny-llada", "d2cache", "full", WHOLE_BLOCK),
        ("hierarchy_remask", "dkv", "full", WHOLE_BLOCK),
        ("llada2_edit sampler/region=fixed", "dkv", "full", WHOLE_BLOCK),
        ("adablock", "d2cache", "full", "reads all it asks for in a block's first step"),
        ("dystruct", "dual", "full", "reads positions outside the block in every step"),
        ("d3llm", "dual", "full", "reads positions behind the block in every step"),
        ("low_confidence sampler.cfg_scale=1.0", "dual", "full", GUIDED),
        ("low_confidence sampler.cfg_scale=1.0", "block", "block_causal", GUIDED),
        ("eotp sampler.base.cfg_scale=1.0", "prefix", "full", GUIDED),
        ("low_confidence sampler.cfg_scale=1.0", "d2cache", "full", GUIDED),
        ("freedave", "dllm_cache", "full", "needs drafts computed beside the canvas"),
        ("freedave", "d2cache", "full", "needs drafts computed beside the canvas"),
    ],
)
def test_what_a_rule_reads_is_computed(
    options: str, policy: str, attention: str, reason: str
) -> None:
    rule = built(*f"sampler={options}".split())
    spec = replace(SPEC, attention=attention, block_size=4)
    stored = cache(policy)
    names = type(rule).__name__, type(stored).__name__
    line = f"sampler={names[0]} {reason}, which cache={names[1]} does not; use "
    (said,) = [found for found in refusals(rule, stored, spec) if found.startswith(line)]
    assert said.endswith("cache=none")
    instead = re.findall(r"cache=(\w+)", said.removeprefix(line))
    for other in instead:
        for shift in (0, 1):
            shifted = replace(spec, logit_shift=shift)
            assert not [r for r in refusals(rule, cache(other), shifted) if reason in r]


def test_a_cache_that_computes_it_is_named() -> None:
    ahead, shifted = built("sampler=ete", "sampler.ahead=1"), replace(SPEC, logit_shift=1)
    line = "sampler=ETE reads positions behind the block in every step, which cache={} does not; "
    assert refusals(ahead, cache("dual"), SPEC) == [
        line.format("DualCache") + "use cache=prefix or cache=none"
    ]
    own = build(compose(["cache=prefix", "cache.shifted_rows=own"]).cache, "cache")
    assert refusals(ahead, own, shifted) == [
        line.format("PrefixCache") + "use cache=prefix (cache.shifted_rows=previous) or cache=none"
    ]
    assert refusals(ahead, cache("prefix"), shifted) == []


def test_canvases_of_the_other_kind() -> None:
    masks, noise = sampler("sampler=threshold"), built("sampler=diffusion_gemma")
    (reason,) = refusals(masks, NoCache(), NOISE)
    assert reason == (
        "sampler=Threshold decodes canvases of masks; those of the diffusion_gemma model are of "
        "random tokens, without a mask token"
    )
    assert (
        "sampler=DiffusionGemma decodes canvases of random tokens, without a mask token; those of "
        "the llada model are of masks"
    ) in refusals(noise, NoCache(), SPEC)
    assert refusals(noise, NoCache(), NOISE) == []


AUTOREGRESSIVE = replace(SPEC, attention="causal", logit_shift=1)


def test_a_model_without_a_mask_token_decodes_under_no_rule() -> None:
    without = replace(AUTOREGRESSIVE, mask_id=NO_MASK)
    for name in ("random", "threshold", "left_to_right", "deer", "prompt_lookup"):
        (reason,) = refusals(built(f"sampler={name}"), NoCache(), without)
        assert reason.startswith("the model is autoregressive, it has no mask token")


@pytest.mark.parametrize(
    "options",
    [
        ["sampler=low_confidence"],
        ["sampler=threshold"],
        ["sampler=ar"],
        ["sampler=wedlm"],
        ["sampler=ete"],
        ["sampler=r2dllm"],
        ["sampler=freedave"],
        ["sampler=eotp"],
    ],
)
def test_an_autoregressive_model_reads_no_masks(options: list[str]) -> None:
    rule = built(*options)
    assert (
        f"sampler={type(rule).__name__} predicts behind masks, which an autoregressive model has "
        "never read; use sampler=left_to_right with sampler.threshold=null"
    ) in refusals(rule, NoCache(), AUTOREGRESSIVE)


@pytest.mark.parametrize("name", ["left_to_right", "prompt_lookup", "deer", "opening"])
def test_what_an_autoregressive_model_verifies_or_says_next(name: str) -> None:
    rule = built(f"sampler={name}")
    if isinstance(rule, Wrapper):
        rule = replace(rule, base=built("sampler=left_to_right"))
    assert refusals(rule, cache("causal"), AUTOREGRESSIVE) == []


@pytest.mark.parametrize("wrapper", ["eotp", "r2dllm"])
def test_what_a_wrapper_commits_beside_its_base_lies_ahead(wrapper: str) -> None:
    rule = replace(built(f"sampler={wrapper}"), base=built("sampler=left_to_right"))
    assert any("behind masks" in r for r in refusals(rule, NoCache(), AUTOREGRESSIVE))


def test_models_beside_the_canvas_s() -> None:
    """One that is missing, one of the canvas's own name, one that its cache does not fit."""
    rule, causal = built("sampler=deer"), replace(SPEC, attention="causal", logit_shift=1)
    fits = {"verifier": (cache("causal"), causal)}
    assert other_refusals(rule, fits, SPEC) == []
    assert other_refusals(rule, {}, SPEC) == [
        "sampler=Deer asks for model 'verifier', which the session lacks"
    ]
    assert other_refusals(rule, {**fits, "model": fits["verifier"]}, SPEC) == [
        "model 'model' is the canvas's own: another one needs another name"
    ]
    (reason,) = other_refusals(rule, {"verifier": (cache("dual"), causal)}, SPEC)
    assert reason == ("cache=DualCache needs full attention; that of model 'verifier' is causal")


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

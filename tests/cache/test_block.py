"""The exact block cache: same tokens as without it, forwards of both official schedules,
merging."""

from dataclasses import replace

import pytest
from scripted import built
from tiny_decoding import SPEC, random_model

from dllm.cache.block import BlockCache
from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.plan import ForwardKind


SDAR = replace(SPEC, attention="block_causal", block_size=4, max_positions=128)
PREDICTOR = Predictor(random_model(SDAR))
PROMPTS = [Prompt(str(n), tuple(range(3, 4 + n)), 12) for n in range(10)]
SCHEDULES = {
    "sdar": ("own", "after_block"),
    "tdar": ("shared", "before_next"),
    "merged": ("merged", "merged"),
}


def cache(name: str) -> BlockCache:
    prefill, commit = SCHEDULES[name]
    return build(
        compose(["cache=block", f"cache.prefill={prefill}", f"cache.commit={commit}"]).cache,
        "cache",
    )


def decode(policy: object, *options: str, prompts: list[Prompt] = PROMPTS, batch: int = 1):
    rule = built("sampler=sdar", "sampler.threshold=0.5", *options)
    decoder = Decoder(PREDICTOR, rule, policy, batch_size=batch, record=True)  # type: ignore[arg-type]
    return {outcome.sample_id: outcome for outcome in decoder.decode(prompts)}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("region", ["aligned", "fixed"])
def test_tokens_are_those_without_a_cache(name: str, region: str):
    """Also where the region's blocks are not the model's, and in ragged batches."""
    options = [f"sampler/region={region}", "sampler.region.block_length=4"]
    plain, alone = decode(NoCache(), *options), decode(cache(name), *options)
    together = decode(cache(name), *options, batch=4)
    for sample, outcome in plain.items():
        assert alone[sample].tokens == together[sample].tokens == outcome.tokens
        assert alone[sample].cost.rows == together[sample].cost.rows < outcome.cost.rows


def kinds(outcome: Outcome) -> str:
    assert outcome.trace is not None
    return "".join(step.kind[0] for step in outcome.trace.steps)


def test_forwards_of_each_schedule():
    """Prompt of 6: one full block, two tokens in the first decoded one; one token per step."""
    prompt = [Prompt("one", (3, 4, 5, 6, 7, 8), 6)]
    slow = "sampler.mode=static"
    assert kinds(decode(cache("sdar"), slow, prompts=prompt)["one"]) == "psscssssc"
    assert kinds(decode(cache("tdar"), slow, prompts=prompt)["one"]) == "sscssss"
    merged = decode(cache("merged"), slow, prompts=prompt)["one"]
    assert kinds(merged) == "s" * 6
    # A full prompt block is stored with the first step only if that one holds prompt tokens, too.
    full = [Prompt("one", (3, 4, 5, 6), 4)]
    assert kinds(decode(cache("tdar"), slow, prompts=full)["one"]) == "pssss"
    assert merged.cost.forwards == {ForwardKind.STEP: 6}


def test_the_last_block_may_reach_beyond_what_was_asked_for():
    prompt = [Prompt("one", (3, 4, 5), 6)]
    assert len(decode(cache("sdar"), prompts=prompt)["one"].tokens) == 6
    kept = decode(cache("sdar"), "sampler.region.overhang=keep", prompts=prompt)["one"]
    assert len(kept.tokens) == 9


def test_untrained_blocks_are_refused_with_what_is_allowed():
    with pytest.raises(ConfigError, match=r"block_length=16: .* allowed are 1 \(causal\) and 4"):
        decode(NoCache(), "sampler.region.block_length=16")
    allowed = ("sampler.region.block_length=16", "sampler.region.untrained=allow")
    plain = decode(NoCache(), *allowed)
    for sample, outcome in decode(cache("sdar"), *allowed, batch=3).items():
        assert outcome.tokens == plain[sample].tokens
    one = decode(NoCache(), "sampler.region.block_length=1")
    assert all(outcome.cost.steps == 12 for outcome in one.values())


def test_full_attention_is_refused():
    rule = built("sampler=threshold", "sampler.region.block_length=4")
    decoder = Decoder(Predictor(random_model()), rule, cache("sdar"))
    with pytest.raises(ConfigError, match="BlockCache needs block_causal attention"):
        list(decoder.decode(PROMPTS))


@pytest.mark.parametrize("name", ["sdar", "tdar", "merged"])
def test_two_phases_with_other_blocks(name: str):
    """TCCF: the second phase is what its own prompt gives, from any cache and in any batch."""
    options = ("sampler.critic_ids=[9,8]", "sampler.final_gen_length=5", "sampler.think_end=null")
    rule = built("sampler=tccf", *options)
    alone = built("sampler=bacd", "sampler.region.block_length=1")
    policy = EosPolicy.CUT_AFTER_BLOCK
    for batch in (1, 3):
        decoder = Decoder(PREDICTOR, rule, cache(name), policy, batch_size=batch, record=True)
        for outcome in decoder.decode(PROMPTS[:5]):
            first = outcome.earlier
            assert first is not None
            assert outcome.phases() == [first, outcome]
            thought = [token for token in first.tokens if token not in SDAR.eos_ids]
            prompt = PROMPTS[int(outcome.sample_id)].tokens + tuple(thought) + (9, 8)
            again = Decoder(PREDICTOR, alone, NoCache(), policy)
            expected = next(again.decode([Prompt("again", prompt, 5)]))
            assert outcome.tokens == expected.tokens
            assert outcome.cost.nfe - first.cost.nfe >= expected.cost.nfe


def test_a_second_phase_without_room_keeps_the_first():
    rule = built("sampler=tccf", "sampler.critic_ids=[9]", "sampler.final_gen_length=8")
    decoder = Decoder(PREDICTOR, rule, cache("sdar"), record=True)
    outcome = next(decoder.decode([Prompt("one", (3,) * 108, 20)]))
    assert outcome.truncated
    assert outcome.earlier is None
    assert len(outcome.tokens) == 20

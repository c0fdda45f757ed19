"""Samplers around samplers and over foreign regions: whole answers, or a refusal in one line."""

from dataclasses import replace

import pytest
from scripted import built
from tiny_decoding import MASK, SPEC, decode, ragged_prompts, random_model

from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Prompt


def prompts(gen_length: int = 16) -> list[Prompt]:
    return [replace(prompt, gen_length=gen_length) for prompt in ragged_prompts(3)]


@pytest.mark.parametrize(
    "options",
    [
        "daedal sampler/region=adaptive sampler.region.delimiter_ids=[3,5,7,9,11] "
        "sampler.region.delimiter_threshold=0.1 sampler.region.default_block_length=8",
        "opening sampler@sampler.base=eotp sampler.base.base.region.block_length=8",
        "opening sampler@sampler.base=low_confidence sampler.base.region.block_length=8 "
        "sampler.base.steps=8",
        "window sampler.early_stop=true sampler.base.steps=8",
        "window_dream sampler.refresh_cycle=15",
        "tccf sampler@sampler.base=dream_entropy sampler/region@sampler.final_region=fixed "
        "sampler.final_region.block_length=null sampler.critic_ids=[3,4] "
        "sampler.final_gen_length=8",
    ],
)
def test_answers_are_whole(options: str) -> None:
    rule = built(*f"sampler={options}".split())
    for seed in range(3):
        for outcome in decode(rule, prompts(), Predictor(random_model(seed=seed))).values():
            assert outcome.failure is None and MASK not in outcome.tokens


@pytest.mark.parametrize(
    "region",
    [
        "uneven sampler.region.block_length=5",
        "adaptive sampler.region.delimiter_ids=[3,5,7,9] "
        "sampler.region.delimiter_threshold=0.05 sampler.region.default_block_length=8",
        "aligned sampler.region.block_length=5",
    ],
)
def test_the_oracle_in_blocks_of_unlike_lengths(region: str) -> None:
    rule = built("sampler=oracle", *f"sampler/region={region}".split())
    wanted = [replace(prompt, reference=tuple(range(3, 16))) for prompt in prompts(13)]
    alone = decode(rule, wanted)
    for order in (wanted, wanted[::-1]):
        for name, outcome in decode(rule, order, batch_size=3).items():
            assert outcome.failure is None and MASK not in outcome.tokens
            assert outcome.tokens == alone[name].tokens


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("opening sampler@sampler.base=dystruct", "plans its commits ahead"),
        ("r2dllm sampler@sampler.base=dystruct", "plans its commits ahead"),
        ("eotp sampler@sampler.base=dystruct", "base=Dystruct decides the length"),
        ("eotp sampler@sampler.base=daedal", "base=Daedal decides the length"),
        ("eotp sampler@sampler.base=wedlm", "base=WeDLM decides the length"),
        ("wedlm sampler/region=fixed", "FixedBlocks is not of type StreamingWindow"),
        (
            "dystruct sampler/region=growing",
            "GrowingBlocks is not of type InferredWindows",
        ),
    ],
)
def test_parts_that_do_not_go_together(options: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        built(*f"sampler={options}".split())
    assert "\n" not in str(caught.value)


GROWN = "window sampler@sampler.base=daedal sampler.base.region.block_length=4"


@pytest.mark.parametrize(
    ("options", "inside"),
    [
        ("eotp sampler@sampler.base=eotp", "EndOfTextPrediction"),
        ("eotp sampler@sampler.base=window sampler.base.early_stop=true", "Window"),
        ("eotp sampler@sampler.base=window sampler.base.early_stop=false", None),
        (f"{GROWN} sampler.early_stop=true", "Daedal"),
        (f"{GROWN} sampler.early_stop=false", None),
    ],
)
def test_one_rule_alone_decides_the_length(options: str, inside: str | None) -> None:
    """Also where that is an option of the rule inside."""
    if inside is None:
        built(*f"sampler={options}".split())
        return
    with pytest.raises(ConfigError) as caught:
        built(*f"sampler={options}".split())
    assert str(caught.value) == (
        f"sampler.base={inside} decides the length of the answer by itself: no other rule may cut "
        "it"
    )


@pytest.mark.parametrize("base", ["dream_entropy", "window_dream"])
def test_the_second_phase_is_validated_against_the_rule(base: str) -> None:
    rule = built("sampler=tccf", f"sampler@sampler.base={base}", "sampler.critic_ids=[3]")
    with pytest.raises(ConfigError, match=r"sampler\.final_region"):
        rule.validate(16)
    steps = built(
        "sampler=tccf",
        "sampler@sampler.base=low_confidence",
        "sampler.base.steps=8",
        "sampler.base.region.block_length=8",
        "sampler/region@sampler.final_region=fixed",
        "sampler.final_region.block_length=8",
    )
    with pytest.raises(ConfigError, match=r"sampler\.base\.steps=8 lays out one answer"):
        steps.validate(16)


@pytest.mark.parametrize("token", [-1, SPEC.vocab_size, MASK])
@pytest.mark.parametrize(
    "option",
    [
        "sampler=eotp sampler.end_ids=[{}]",
        "sampler=low_confidence sampler.eot_ids=[{}]",
        "sampler=wedlm sampler.stop_sequences=[[3,{}]]",
        "sampler=tccf sampler.critic_ids=[3,{}]",
        "sampler=dystruct sampler.delimiter_ids=[{}]",
    ],
)
def test_token_ids_are_those_of_the_model(option: str, token: int) -> None:
    rule = built(*option.format(token).split())
    spec: ModelSpec = replace(SPEC, attention="causal") if "wedlm" in option else SPEC
    with pytest.raises(ConfigError, match=f"token id {token} is"):
        rule.check_model(spec)


def test_no_edit_writes_the_mask_token() -> None:
    """A drawn mask token is refused to a rule that overwrites as it is to one that commits."""
    rule = built(
        "sampler=hierarchy_remask",
        "sampler/proposer=gumbel",
        "sampler/region=streaming",
        "sampler.low_threshold=0.5",
    )
    edits = 0
    for outcome in decode(rule, prompts(), record=True).values():
        assert outcome.failure is None and MASK not in outcome.tokens and outcome.trace is not None
        for step in outcome.trace.steps:
            edits += len(step.edits)
            assert MASK not in [token for _, token in step.edits]
    assert edits > 10


def test_rows_that_a_cache_leaves_out_draw_nothing() -> None:
    """Window-Diffusion's cache computes less of the block than the rule asks for."""
    rule = built(
        "sampler=threshold", "sampler/proposer=categorical", "sampler.region.block_length=null"
    )
    shifted = replace(SPEC, logit_shift=1)
    cache = build(
        compose(["cache=window_dream", "cache.outer_window=1", "cache.refresh_cycle=3"]).cache,
        "cache",
    )
    decoder = Decoder(Predictor(random_model(shifted)), rule, cache)
    for outcome in decoder.decode(prompts()):
        assert outcome.failure is None and MASK not in outcome.tokens

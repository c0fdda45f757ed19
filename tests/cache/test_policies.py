"""Window, dLLM-Cache, d2Cache, dKV and vicinity: what holds for every approximate cache."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ranges import POSITIVE, UNIT, at_least, check_range
from scripted import built
from tiny_decoding import SPEC, ragged_prompts, random_model

from dllm.config import build, compose
from dllm.engine.legality import refusals
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.hub import EMBEDDED
from dllm.models.spec import ModelSpec
from dllm.runs.execute import execute
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome


SMALL = {
    "window": ("cache.outer_window=6", "cache.refresh_cycle=3"),
    "window_dream": ("cache.outer_window=6", "cache.refresh_cycle=3"),
    "dllm_cache": ("cache.prompt_interval=5", "cache.response_interval=3"),
    "d2cache": ("cache.current_k=3", "cache.sigma=3.0", "cache.inflate_w=2"),
    "dkv": ("cache.refresh_every=4",),
    "vicinity": ("cache.prefix_look=2", "cache.after_look=3", "cache.warmup_steps=1"),
}
EXACT = {
    "window": ("cache.refresh_cycle=1",),
    "dllm_cache": ("cache.prompt_interval=1", "cache.response_interval=1"),
    "dkv": ("cache.refresh_every=1",),
    "vicinity": ("cache.warmup_steps=64",),
}


def outcomes(
    *options: str, spec: ModelSpec = SPEC, threshold: float = 0.3, **more: Any
) -> list[Outcome]:
    """Of the ragged prompts, blocks of four, every position above the threshold and at least
    one."""
    config = compose(["sampler=threshold", *options])
    config.sampler.threshold, config.sampler.region.block_length = threshold, 4
    rule, policy = build(config.sampler, "sampler"), build(config.cache, "cache")
    decoder = Decoder(Predictor(random_model(spec)), rule, policy, record=True, **more)
    found = {outcome.sample_id: outcome for outcome in decoder.decode(ragged_prompts())}
    return [found[prompt.sample_id] for prompt in ragged_prompts()]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", SMALL)
def test_neighbours_change_nothing(name: str, shift: int) -> None:
    spec = replace(SPEC, logit_shift=shift)
    options = (f"cache={name}", *SMALL[name])
    alone = outcomes(*options, spec=spec)
    together = outcomes(*options, spec=spec, batch_size=4)
    assert [o.tokens for o in together] == [o.tokens for o in alone]
    assert [o.cost.forwards for o in together] == [o.cost.forwards for o in alone]
    assert [o.cost.rows for o in together] == [o.cost.rows for o in alone]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", SMALL)
def test_every_answer_is_completed(name: str, shift: int) -> None:
    spec = replace(SPEC, logit_shift=shift)
    for outcome in outcomes(f"cache={name}", *SMALL[name], spec=spec, batch_size=3):
        assert outcome.failure is None
        assert SPEC.mask_id not in outcome.tokens


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", EXACT)
def test_exact_when_everything_is_always_computed(name: str, shift: int) -> None:
    spec = replace(SPEC, logit_shift=shift)
    plain = outcomes("cache=none", spec=spec, batch_size=4)
    cached = outcomes(f"cache={name}", *EXACT[name], spec=spec, batch_size=4)
    assert [o.tokens for o in cached] == [o.tokens for o in plain]
    assert [o.cost.nfe for o in cached] == [o.cost.nfe for o in plain]


@pytest.mark.parametrize("name", SMALL)
def test_fewer_rows_are_computed(name: str) -> None:
    plain = sum(o.cost.rows for o in outcomes("cache=none", threshold=1.0))
    cached = outcomes(f"cache={name}", *SMALL[name], threshold=1.0)
    assert sum(o.cost.rows for o in cached) < plain


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("attention", ["causal", "block_causal"])
def test_full_attention_only(name: str, attention: Any) -> None:
    spec = replace(SPEC, attention=attention, block_size=4)
    with pytest.raises(ConfigError, match=f"needs full attention; the model's is {attention}"):
        outcomes(f"cache={name}", spec=spec)


@pytest.mark.parametrize("name", SMALL)
def test_guidance_is_refused(name: str) -> None:
    """Its alternative canvas has another prompt than what is stored."""
    rule = built("sampler=low_confidence", "sampler.region.block_length=4", "sampler.cfg_scale=1.0")
    policy = build(compose([f"cache={name}", *SMALL[name]]).cache, "cache")
    decoder = Decoder(Predictor(random_model()), rule, policy)
    with pytest.raises(ConfigError, match="needs canvases without the prompt"):
        list(decoder.decode(ragged_prompts(1)))


BEYOND = ("sampler/region=growing", "sampler.region.initial_length=6")
"""Blocks of four: the second one reaches beyond a canvas of six positions."""


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", ["none", "prefix", "dual", *SMALL])
def test_a_block_may_reach_beyond_the_canvas(name: str, shift: int) -> None:
    spec = replace(SPEC, logit_shift=shift)
    options = (f"cache={name}", *SMALL.get(name, ()), *BEYOND)
    for outcome in outcomes(*options, spec=spec, batch_size=4):
        assert SPEC.mask_id not in outcome.tokens and outcome.trace is not None
        ends = [end for step in outcome.trace.steps for _, end in step.spans]
        assert max(ends, default=0) <= len(outcome.tokens)


@pytest.mark.parametrize("sampler", ["threshold", "wino", "localleap", "left_to_right"])
@pytest.mark.parametrize("name", ["none", "prefix", "dual", *SMALL])
def test_a_block_may_reach_beyond_what_is_stored(name: str, sampler: str) -> None:
    """The canvas has room for no more than these positions."""
    config = compose([f"sampler={sampler}", f"cache={name}", *SMALL.get(name, ()), *BEYOND])
    config.sampler.region.block_length = 4
    rule, policy = build(config.sampler, "sampler"), build(config.cache, "cache")
    if refusals(rule, policy, SPEC, 4):
        return
    decoder = Decoder(
        Predictor(random_model()), rule, policy, EosPolicy.STOP_AFTER_BLOCK, batch_size=4
    )
    for outcome in decoder.decode([replace(p, gen_length=6) for p in ragged_prompts()]):
        assert outcome.failure is None and len(outcome.tokens) == 6


AT_LEAST_ONE = at_least(1, 0)
AT_LEAST_ZERO = at_least(0, -1)
RANGES = {
    ("window", "outer_window"): AT_LEAST_ONE,
    ("window", "refresh_cycle"): AT_LEAST_ONE,
    ("dllm_cache", "prompt_interval"): AT_LEAST_ONE,
    ("dllm_cache", "response_interval"): AT_LEAST_ONE,
    ("dllm_cache", "update_share"): UNIT,
    ("d2cache", "current_k"): AT_LEAST_ONE,
    ("d2cache", "inflate_w"): AT_LEAST_ZERO,
    ("d2cache", "sigma"): POSITIVE,
    ("d2cache", "rollout_p"): UNIT,
    ("dkv", "refresh_every"): AT_LEAST_ONE,
    ("vicinity", "prefix_look"): AT_LEAST_ZERO,
    ("vicinity", "after_look"): AT_LEAST_ZERO,
    ("vicinity", "warmup_steps"): AT_LEAST_ZERO,
    ("vicinity", "refresh_every"): AT_LEAST_ONE,
}


@pytest.mark.parametrize(("name", "option"), RANGES)
def test_option_range(name: str, option: str) -> None:
    """A bound is allowed, what is beyond it is refused by name."""
    check_range(compose([f"cache={name}"]), "cache", option, RANGES[name, option])


@pytest.mark.parametrize("baseline", ["true", "false"])
def test_refused_before_a_model_is_loaded(baseline: str, tmp_path: Path) -> None:
    """There are no weights to load."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / "tiny-llada" / name, tmp_path)
    model = ["model=checkpoint", f"model.path={tmp_path}", f"output={tmp_path / 'runs'}"]
    config = compose([*model, "sampler=threshold", "cache=causal", f"baseline={baseline}"])
    with pytest.raises(ConfigError, match="cache=CausalCache needs causal attention"):
        execute(config, "threshold")
    assert not (tmp_path / "runs").exists()


OPENING, BLOCK, AHEAD, ALL = "opening_logits", "block_logits", "ahead_logits", "all_logits"
DRAFTS, GUIDANCE = "hypotheses", "guidance"


@pytest.mark.parametrize(
    ("cache", "shift", "needs"),
    [
        ("none", 0, {OPENING, BLOCK, ALL, DRAFTS, GUIDANCE}),
        ("prefix", 0, {OPENING, BLOCK, AHEAD, DRAFTS}),
        ("prefix", 1, {OPENING, BLOCK, AHEAD, DRAFTS}),
        ("prefix cache.shifted_rows=own", 0, {OPENING, BLOCK, AHEAD, DRAFTS}),
        ("prefix cache.shifted_rows=own", 1, {OPENING, DRAFTS}),
        ("dual", 0, {OPENING, BLOCK, DRAFTS}),
        ("dual", 1, {OPENING, BLOCK}),
        ("dual cache.shifted_rows=own", 0, {OPENING, BLOCK, DRAFTS}),
        ("dual cache.shifted_rows=own", 1, {OPENING, DRAFTS}),
        ("vicinity", 0, {OPENING, BLOCK, DRAFTS}),
        ("window", 0, {OPENING, BLOCK, ALL, DRAFTS}),
        ("window_dream", 1, {DRAFTS}),
        ("dkv", 0, {OPENING, DRAFTS}),
        ("dkv cache.shifted_rows=next", 1, {OPENING}),
        ("dkv cache.shifted_rows=both", 1, {OPENING, DRAFTS}),
        ("dkv cache.variant=prefill", 1, {OPENING, BLOCK, ALL, DRAFTS}),
        ("dllm_cache", 0, {OPENING, BLOCK, ALL}),
        ("d2cache", 0, set()),
        ("block", 0, {OPENING, BLOCK, ALL, DRAFTS}),
        ("causal", 0, {OPENING, BLOCK, ALL, DRAFTS}),
        ("encoder", 0, {OPENING, BLOCK}),
    ],
)
def test_what_a_cache_computes(cache: str, shift: int, needs: set[str]) -> None:
    """A rule that needs more is refused, one that needs no more is not."""
    policy = build(compose(f"cache={cache}".split()).cache, "cache")
    assert policy.supplies(replace(SPEC, logit_shift=shift)) == needs

"""Prefix and dual cache: exact where they must be, what they feed, and what they refuse."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from scripted import built
from tiny_decoding import SPEC, ragged_prompts, random_model
from walk import Walk

from dllm.cache.policy import CachePolicy
from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.spec import ModelSpec
from dllm.step.outcome import Outcome


CACHES = ["prefix", "dual"]


def cache(name: str, *options: str) -> CachePolicy:
    return build(compose([f"cache={name}", *options]).cache, "cache")


def outcomes(
    policy: CachePolicy, block: int | None, spec: ModelSpec = SPEC, **options: Any
) -> list[Outcome]:
    length = "null" if block is None else block
    rule = built("sampler=threshold", f"sampler.region.block_length={length}")
    decoder = Decoder(Predictor(random_model(spec)), rule, policy, record=True, **options)
    found = {outcome.sample_id: outcome for outcome in decoder.decode(ragged_prompts())}
    return [found[prompt.sample_id] for prompt in ragged_prompts()]


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("shift", [0, 1])
def test_exact_when_every_forward_refreshes(name: str, shift: int) -> None:
    spec = replace(SPEC, logit_shift=shift)
    plain, cached = outcomes(cache("none"), 1, spec), outcomes(cache(name), 1, spec)
    assert [o.tokens for o in cached] == [o.tokens for o in plain]
    assert all(set(o.cost.forwards) == {"refresh"} for o in cached)


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("shift", [0, 1])
def test_neighbours_change_nothing(name: str, shift: int) -> None:
    spec = replace(SPEC, logit_shift=shift)
    alone = outcomes(cache(name), 4, spec)
    together = outcomes(cache(name), 4, spec, batch_size=4)
    assert [o.tokens for o in together] == [o.tokens for o in alone]
    assert [o.cost.forwards for o in together] == [o.cost.forwards for o in alone]
    assert [o.cost.rows for o in together] == [o.cost.rows for o in alone]


@pytest.mark.parametrize(
    ("name", "shift", "rows", "own"),
    [("prefix", 0, 8, 8), ("dual", 0, 4, 4), ("prefix", 1, 9, 8), ("dual", 1, 4, 4)],
)
def test_rows_fed(name: str, shift: int, rows: int, own: int) -> None:
    """First block of an answer of eight: the whole canvas, then from the block on or the block."""
    spec = replace(SPEC, logit_shift=shift)
    for option, expected in (("previous", rows), ("own", own)):
        policy = cache(name, f"cache.shifted_rows={option}")
        base = "sampler.base" if shift else "sampler"
        chosen = ["sampler=opening"] if shift else ["sampler=threshold"]
        rule = built(*chosen, f"{base}.region.block_length=4", f"{base}.threshold=1.0")
        prompt = replace(ragged_prompts()[0], gen_length=8)
        decoder = Decoder(Predictor(random_model(spec)), rule, policy, record=True)
        trace = next(decoder.decode([prompt])).trace
        assert trace is not None
        whole = len(prompt.tokens) + 8
        assert [step.fed for step in trace.steps[:4]] == [whole, *[expected] * 3]
        assert trace.steps[4].fed == whole
        lead = shift if option == "previous" else 0
        spans = [step.spans for step in trace.steps[:5]]
        assert spans == [[], *[[(-lead, expected - lead)]] * 3, []]


@pytest.mark.parametrize("name", CACHES)
def test_idle_forward_of_the_first_official_version(name: str) -> None:
    """One more forward for every block that its opening forward completed, and nothing else."""
    later = outcomes(cache(name), 4)
    legacy = outcomes(cache(name, "cache.legacy_idle_forward=true"), 4)
    for new, old in zip(later, legacy, strict=True):
        assert new.trace is not None and old.trace is not None
        assert old.tokens == new.tokens
        blocks = [step.block for step in new.trace.steps]
        at_once = sum(blocks.count(block) == 1 for block in set(blocks))
        assert old.cost.nfe == new.cost.nfe + at_once
        assert sum(not step.positions for step in old.trace.steps) == at_once


def test_a_step_of_the_dual_cache_keeps_its_rows() -> None:
    """An answer that is cut goes on attending to its tail as the last step left it."""
    predictor = Predictor(random_model())
    walk = Walk("cache=dual", masks=6)
    for _ in range(2):
        predictor.predict(walk.plan(), walk.store)
        assert walk.store.token[0].tolist() == walk.canvas.tokens[0].tolist()
        walk.decide(4)


@pytest.mark.parametrize("name", CACHES)
def test_a_refresh_forgets_what_was_cut_off(name: str) -> None:
    """After an answer was cut, the next block is predicted as if it had never been longer."""
    predictor = Predictor(random_model())
    logits = []
    for longer in (True, False):
        walk = Walk(f"cache={name}", masks=9)
        if longer:
            predictor.predict(walk.plan(), walk.store)
        walk.canvas.truncate(0, 9)
        walk.canvas.enter_block(0, 3, 6)
        predictor.predict(walk.plan(), walk.store)
        walk.decide(4)
        step = predictor.predict(walk.plan([3, 5]), walk.store)
        assert step is not None
        logits.append(step.logits)
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("name", CACHES)
def test_guidance_changes_the_stored_prompt(name: str) -> None:
    rule = built("sampler=low_confidence", "sampler.region.block_length=4", "sampler.cfg_scale=1.0")
    decoder = Decoder(Predictor(random_model()), rule, cache(name))
    with pytest.raises(ConfigError, match="needs canvases without the prompt"):
        list(decoder.decode(ragged_prompts(1)))


@pytest.mark.parametrize("name", CACHES)
def test_full_attention_only(name: str) -> None:
    rule = built("sampler=threshold", "sampler.region.block_length=4")
    model = random_model(replace(SPEC, attention="causal"))
    with pytest.raises(ConfigError, match="needs full attention; the model's is causal"):
        list(Decoder(Predictor(model), rule, cache(name)).decode(ragged_prompts(1)))

"""Stale slots are counted, and an audited run says what they changed."""

from typing import Any

import pytest
import torch
from constraining import Watching
from scripted import built
from tiny_decoding import SPEC, canvas_of, ragged_prompts, random_model

from dllm.cache.audit import staleness
from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.step.outcome import Outcome
from dllm.step.plan import Request, pad_positions


def outcomes(*options: str, **more: Any) -> list[Outcome]:
    rule = built("sampler=threshold", "sampler.region.block_length=4", "sampler.threshold=0.6")
    policy = build(compose(options).cache, "cache")
    decoder = Decoder(Predictor(random_model()), rule, policy, batch_size=3, **more)
    found = {outcome.sample_id: outcome for outcome in decoder.decode(ragged_prompts())}
    return [found[prompt.sample_id] for prompt in ragged_prompts()]


def test_stale_slots() -> None:
    """Dual cache, block of four: what the block's neighbours hold counts, its own rows do not."""
    policy = build(compose(["cache=dual"]).cache, "cache")
    policy.begin(SPEC)
    canvas = canvas_of([0] * 8, prompt=(5, 6, 7))
    canvas.enter_block(0, 3, 7)
    store = KVStore(SPEC, 1, 11, torch.float32)
    for changed, expected in (([], (0, 0)), ([3, 9], (7, 1)), ([10], (7, 2))):
        canvas.tokens[0, changed] = 9
        plan = policy.plan(canvas, Request(pad_positions(canvas.masked())), store)[-1]
        found = staleness(plan, canvas, store)
        assert (found.attended[0], found.stale[0]) == expected
        Predictor(random_model()).predict(plan, store)
        canvas.step_in_block += 1


@pytest.mark.parametrize("name", ["dual", "window", "d2cache", "dllm_cache", "dkv", "vicinity"])
def test_audit_changes_nothing(name: str) -> None:
    plain = outcomes(f"cache={name}")
    audited = outcomes(f"cache={name}", "cache.audit=true")
    assert [o.tokens for o in audited] == [o.tokens for o in plain]
    assert [o.cost.forwards for o in audited] == [o.cost.forwards for o in plain]
    assert all(o.cost.audited == o.cost.steps for o in audited)
    assert not any(o.cost.audited for o in plain)
    assert [o.cost.stale for o in audited] == [o.cost.stale for o in plain]


def test_audit_finds_what_a_stale_cache_changes() -> None:
    found = outcomes("cache=dual", "cache.audit=true")
    assert sum(o.cost.stale for o in found) == 0  # the block is all that changes within a block
    assert sum(o.cost.audit_kl for o in found) > 1e-3
    exact = outcomes(
        "cache=dllm_cache",
        "cache.prompt_interval=1",
        "cache.response_interval=1",
        "cache.audit=true",
    )
    assert sum(o.cost.audit_kl for o in exact) == pytest.approx(0, abs=1e-9)
    assert sum(o.cost.audit_changed for o in exact) == 0


def test_audit_asks_a_copy_of_the_constraint() -> None:
    """The cache-free decision is under review, too: an exact cache leads to the same one."""
    exact = ("cache=dllm_cache", "cache.prompt_interval=1", "cache.response_interval=1")
    watching = Watching(set(range(2, 24, 3)))
    audited = outcomes(*exact, "cache.audit=true", constraint=watching)
    assert sum(o.cost.rejections for o in audited) > 10
    assert sum(o.cost.audit_changed for o in audited) == 0
    plain = outcomes(*exact, constraint=watching)
    assert [o.tokens for o in audited] == [o.tokens for o in plain]
    assert [o.cost.checks for o in audited] == [o.cost.checks for o in plain]

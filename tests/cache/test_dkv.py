"""dKV-Cache: which rows a forward feeds, sees and keeps."""

from dataclasses import replace

import pytest
import torch
from tiny_decoding import MASK, SPEC, random_model
from walk import Walk, rows, seen

from dllm.forward.predictor import Predictor
from dllm.step.plan import ForwardKind


def test_delayed_caching() -> None:
    """R = 4, decoded in the order 5, 3, 7, 4, 6, 9."""
    walk = Walk("cache=dkv", "cache.refresh_every=4", masks=7)
    fed = []
    for decided in (5, 3, 7, 4, 6, 9):
        fed.append(rows(walk.plan()))
        walk.decide(decided)
    everything = list(range(10))
    assert fed == [
        everything,
        everything,
        [3, 4, 6, 7, 8, 9],
        [4, 6, 7, 8, 9],
        everything,
        [6, 8, 9],
    ]


def test_delayed_caching_keeps_the_newcomers() -> None:
    walk = Walk("cache=dkv", "cache.refresh_every=8", masks=7)
    for decided in (5, 3):
        walk.plan()
        walk.decide(decided)
    plan = walk.plan()
    assert seen(plan) == [0, 1, 2, 5]
    assert isinstance(plan.write, torch.Tensor)
    kept = [slot for slot, keep in zip(rows(plan), plan.write[0].tolist(), strict=True) if keep]
    assert kept == [3]


@pytest.mark.parametrize(("shifted", "expected"), [("next", [4]), ("both", [])])
def test_delayed_caching_of_shifted_rows(shifted: str, expected: list[int]) -> None:
    """Row 4 predicts 5: kept once 5 is decided (`next`), or both are (`both`)."""
    spec = replace(SPEC, logit_shift=1)
    walk = Walk("cache=dkv", f"cache.shifted_rows={shifted}", masks=7, spec=spec)
    for decided in (5, 9):
        walk.plan()
        walk.decide(decided)
    assert [slot for slot in seen(walk.plan()) if slot >= 3 and slot < 8] == expected


def test_prompt_only_cache() -> None:
    walk = Walk("cache=dkv", "cache.variant=prefill", masks=4)
    assert rows(walk.plan()) == list(range(7))
    walk.decide(4)
    plan = walk.plan()
    assert rows(plan) == [3, 4, 5, 6]
    assert seen(plan) == [0, 1, 2]


def test_what_is_masked_again_is_fed_again() -> None:
    """And what was decided for good stays in the store."""
    walk = Walk("cache=dkv", "cache.refresh_every=8", masks=7)
    for decided in (5, 3, 7):
        walk.plan()
        walk.decide(decided)
    assert rows(walk.plan()) == [4, 6, 7, 8, 9]
    walk.canvas.tokens[0, 5] = MASK
    walk.decide(8)
    assert rows(walk.plan()) == [4, 5, 6, 8, 9]
    walk.decide(5)
    plan = walk.plan()
    assert rows(plan) == [4, 5, 6, 9]
    assert seen(plan) == [0, 1, 2, 3, 7, 8]


def test_a_block_begins_with_two_full_forwards() -> None:
    """Nothing of the block before is attended, in whatever state it was stored."""
    walk, predictor = Walk("cache=dkv", "cache.refresh_every=8", masks=7), Predictor(random_model())
    for decided in (5, 3, 4):
        predictor.predict(walk.plan(), walk.store)
        walk.decide(decided)
    assert walk.store.valid.any()
    walk.canvas.enter_block(0, 6, 10)
    for step, decided in enumerate((7, 6)):
        plan = walk.plan()
        assert rows(plan) == list(range(10)) and plan.visible is None
        assert plan.kind_of(0) is ForwardKind.REFRESH
        assert not walk.store.valid.any(), step
        predictor.predict(plan, walk.store)
        walk.decide(decided)
    plan = walk.plan()
    assert rows(plan) == [6, 8, 9] and plan.kind_of(0) is ForwardKind.STEP


@pytest.mark.parametrize(("shift", "kept"), [(0, [0, 1, 2]), (1, [0, 1])])
def test_the_prompt_is_kept_from_the_first_forward_on(shift: int, kept: list[int]) -> None:
    """Of a shifted model all but its last row, which predicts the answer."""
    spec = replace(SPEC, logit_shift=shift)
    walk = Walk("cache=dkv", "cache.variant=prefill", masks=4, spec=spec)
    predictor = Predictor(random_model(spec))
    predictor.predict(walk.plan(), walk.store)
    assert walk.store.valid[0].nonzero().flatten().tolist() == kept
    for decided in (4, 3, 5):
        walk.decide(decided)
        plan = walk.plan()
        assert seen(plan) == kept
        assert rows(plan) == [at for at in range(7) if at not in kept]
        predictor.predict(plan, walk.store)
        assert walk.store.valid[0].nonzero().flatten().tolist() == kept

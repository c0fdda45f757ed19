"""dKV-Cache: which rows a forward feeds, sees and keeps."""

from dataclasses import replace

import pytest
import torch
from tiny_decoding import SPEC
from walk import Walk, rows, seen


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

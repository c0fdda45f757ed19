"""Worked examples: which rows each cache feeds and sees."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_decoding import SPEC, canvas_of, random_model

from dllm.cache.d2cache import inflate, nucleus
from dllm.config import build, compose
from dllm.forward.partial import PartialForward
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.density import certainty_density
from dllm.step.plan import Plan, Request, pad_positions


class Walk:
    """A policy before one sequence whose decisions are written down."""

    def __init__(self, *options: str, masks: int, spec: ModelSpec = SPEC):
        self.policy = build(compose(options).cache, "cache")
        self.policy.begin(spec)
        self.canvas: Canvas = canvas_of([0] * masks, prompt=(5, 6, 7))
        self.canvas.enter_block(0, 3, 3 + masks)
        self.store = KVStore(spec, 1, 3 + masks, torch.float32)

    def plan(self, wanted: Sequence[int] | None = None) -> Plan:
        asked = self.canvas.masked()
        if wanted is not None:
            asked = np.zeros_like(asked)
            asked[0, list(wanted)] = True
        return self.policy.plan(self.canvas, Request(pad_positions(asked)), self.store)[-1]

    def decide(self, *positions: int) -> None:
        self.canvas.tokens[0, list(positions)] = 9
        self.canvas.step += 1
        self.canvas.step_in_block += 1


def rows(plan: Plan) -> list[int]:
    return plan.slots[0].tolist()


def seen(plan: Plan) -> list[int]:
    assert plan.visible is not None
    return plan.visible[0].nonzero().flatten().tolist()


def first(canvas: Canvas, count: int) -> list[int]:
    return canvas.masked()[0].nonzero()[0][:count].tolist()


def test_window_partition_on_llada() -> None:
    """8.1: W = 6, A = 3; the refresh decodes 5, the steps 4, 7 and 3."""
    walk = Walk("cache=window", "cache.outer_window=6", masks=12)
    assert rows(walk.plan()) == list(range(15))
    fed = []
    for decided in (5, 4, 7, 3):
        walk.decide(decided)
        plan = walk.plan(first(walk.canvas, 3))
        fed.append(rows(plan))
        assert seen(plan) == list(range(10))
    assert fed == [[3, 4, 5, 6], [3, 4, 6, 7], [3, 4, 6, 7, 8], [3, 4, 6, 7, 8, 9]]


def test_window_far_field_decision() -> None:
    """8.2: a refresh may decode far ahead; what lies between stays invisible."""
    walk = Walk("cache=window", "cache.outer_window=6", masks=12)
    walk.plan()
    walk.decide(13)
    plan = walk.plan(first(walk.canvas, 3))
    assert rows(plan) == [3, 4, 5, 13]
    assert seen(plan) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 13]


def test_a_row_outside_the_visible_set_is_no_key() -> None:
    walk = Walk("cache=window", "cache.outer_window=2", masks=8)
    walk.plan()
    walk.decide(3)
    plan = walk.plan([4, 5, 6])
    assert rows(plan) == [3, 4, 5, 6]
    assert isinstance(plan.within, torch.Tensor)
    assert plan.within[0].tolist() == [[True, True, True, False]] * 4


def test_window_partition_on_dream() -> None:
    """8.3: O = 7 keeps six masks, I = 3; 3, 5 and 4 are decoded, then the next refresh."""
    options = ("cache=window_dream", "cache.outer_window=6", "cache.refresh_cycle=4")
    walk = Walk(*options, masks=12)
    assert rows(walk.plan([3])) == list(range(9))
    spans = []
    for decided in (3, 5, 4):
        walk.decide(decided)
        spans.append(rows(walk.plan(first(walk.canvas, 3))))
    assert spans == [[3, 4, 5, 6], [3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8]]
    walk.decide()
    assert rows(walk.plan([6])) == list(range(12))


def test_window_span_keeps_a_decided_tail() -> None:
    """8.3: ranks 0 0 1 1 2 2 2 3 4, I = 2: five rows, not three."""
    walk = Walk("cache=window_dream", masks=7)
    walk.canvas.tokens[0] = [5, 6, 0, 9, 0, 9, 9, 0, 0, 0]
    walk.canvas.prompt_length[0] = 2
    walk.canvas.length[0] = 9
    walk.plan([2])
    walk.decide()
    assert rows(walk.plan([2, 4])) == [2, 3, 4, 5, 6]


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


@pytest.mark.parametrize(
    ("block", "expected"), [(0, (0, 58)), (1, (26, 90)), (2, (58, 122)), (3, (90, 138))]
)
def test_vicinity(block: int, expected: tuple[int, int]) -> None:
    """Prompt 10, answer 128, block 32, look 16 on both sides."""
    policy: Any = build(compose(["cache=vicinity"]).cache, "cache")
    policy.begin(SPEC)
    canvas = canvas_of([0] * 128, prompt=(5,) * 10)
    canvas.enter_block(0, 10 + 32 * block, 42 + 32 * block)
    start, end = policy.window(canvas)
    assert (start[0], end[0]) == expected


def test_vicinity_schedule() -> None:
    """Warm-up steps, then one full forward per block."""
    walk = Walk("cache=vicinity", "cache.warmup_steps=2", "cache.after_look=1", masks=12)
    walk.canvas.block_end[0] = 7
    fed = []
    for decided in (3, 4, 5, 6):
        plan = walk.plan()
        fed.append((len(rows(plan)), plan.kind_of(0).value))
        walk.decide(decided)
    assert fed == [(15, "step"), (15, "step"), (15, "refresh"), (8, "step")]


def test_intervals_of_prompt_and_response() -> None:
    """Intervals 25 and 5."""
    walk = Walk(
        "cache=dllm_cache", "cache.prompt_interval=25", "cache.response_interval=5", masks=8
    )
    whole = {}
    for step in range(26):
        plan = walk.plan()
        assert plan.partial is not None
        whole[step] = (bool(plan.partial.whole[0, 0]), bool(plan.partial.whole[0, 5]))
        walk.decide()
    assert whole[0] == whole[25] == (True, True)
    assert all(whole[step] == (False, True) for step in (5, 10, 15, 20))
    assert all(whole[step] == (False, False) for step in (1, 2, 3, 4, 6, 24))


@pytest.mark.parametrize(("count", "expected"), [(2, [1, 3]), (4, [1, 3, 5, 6]), (0, [])])
def test_least_similar_values(count: int, expected: list[int]) -> None:
    """Cosines 1, 0, 1, -1, 1, .707, .995, 1."""
    walk = Walk("cache=dllm_cache", masks=5)
    partial = walk.plan().partial
    assert partial is not None
    partial.pool[:] = True
    partial.count[:] = count
    plan = walk.plan()
    run = PartialForward(replace(plan, partial=partial), walk.store, SPEC.d_model)
    turn = torch.tensor([1, 0, 1, -1, 1, 0.707, 0.995, 1]).acos()
    stored = torch.zeros(1, 1, 8, 2)
    stored[..., 0] = 1
    fresh = torch.stack((turn.cos(), turn.sin()), dim=-1)[None, None]
    chosen = run._changed(fresh, stored)
    assert chosen[0].nonzero().flatten().tolist() == expected
    # All values of the pool are replaced, unless nothing is to be recomputed.
    assert torch.equal(stored, fresh) == (count > 0)


@pytest.mark.parametrize(
    ("decided", "sigma", "expected"),
    [
        ({0, 1}, 2.0, (0.7758, 0.5997, 0.4003, 0.2242, 0.1032, 0.0385, 0.0115, 0.0027)),
        (set(), 2.0, (0.4003, 0.2242, 0.1032, 0.0385, 0.0115, 0.0027, 0.0005, 0.0001)),
        ({1, 6, 7}, 2.0, (0.5790, 0.4352, 0.3178, 0.2627, 0.3005, 0.4300, 0.6090, 0.7781)),
        ({0, 1}, 10.0, (0.3681, 0.3548, 0.3389, 0.3207, 0.3007, 0.2793, 0.2571, 0.2345)),
    ],
)
def test_certainty_density(decided: set[int], sigma: float, expected: tuple[float, ...]) -> None:
    canvas = canvas_of([9 if i in decided else 0 for i in range(8)], prompt=(5, 6, 7))
    assert certainty_density(canvas, sigma)[0, 3:11] == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(("p", "expected"), [(0.1, [0]), (0.5, [0]), (0.75, [0, 1])])
def test_nucleus(p: float, expected: list[int]) -> None:
    share = np.array([0.4, 0.3, 0.2, 0.1])
    assert nucleus(share, p, np.ones(4, dtype=bool)).nonzero()[0].tolist() == expected


@pytest.mark.parametrize(
    ("width", "expected"),
    [(4, [2, 3, 4, 5, 6, 11, 12, 13]), (3, [2, 6, 11, 12, 13]), (0, [2, 6, 11, 13])],
)
def test_inflate(width: int, expected: list[int]) -> None:
    selected = np.isin(np.arange(16), [2, 6, 11, 13])
    assert inflate(selected, width).nonzero()[0].tolist() == expected


def test_rollout_of_a_whole_forward() -> None:
    """Every layer's rows sum to one, so do the columns to the number of rows."""
    walk = Walk("cache=d2cache", masks=5)
    plan = walk.plan()
    Predictor(random_model()).predict(plan, walk.store)
    assert plan.taps is not None and plan.taps.influence is not None
    assert float(plan.taps.influence.sum()) == pytest.approx(8, abs=1e-4)

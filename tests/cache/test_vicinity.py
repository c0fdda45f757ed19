"""Vicinity refresh: the window that is fed, and when the whole canvas is."""

from typing import Any

import pytest
from tiny_decoding import SPEC, canvas_of, random_model
from walk import Walk, rows

from dllm.config import build, compose
from dllm.forward.predictor import Predictor


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


@pytest.mark.parametrize(
    ("every", "kinds"),
    [
        ("1", ["refresh"] * 6),
        ("2", ["refresh", "step"] * 3),
        ("3", ["refresh", "step", "step", "refresh", "step", "step"]),
        ("null", ["refresh", *["step"] * 5]),
    ],
)
def test_a_block_is_refreshed_as_often_as_asked(every: str, kinds: list[str]) -> None:
    walk = Walk("cache=vicinity", "cache.warmup_steps=0", f"cache.refresh_every={every}", masks=9)
    found = []
    for decided in range(3, 9):
        found.append(walk.plan().kind_of(0).value)
        walk.decide(decided)
    assert found == kinds
    walk.canvas.enter_block(0, 9, 12)
    assert walk.plan().kind_of(0).value == "refresh"


def test_warm_up_forwards_keep_nothing() -> None:
    """They attend to nothing that is stored either: a later one makes all anew."""
    walk, predictor = Walk("cache=vicinity", masks=9), Predictor(random_model())
    walk.policy.warmup_steps = 2  # type: ignore[attr-defined]
    for step, (stored, seen) in enumerate([(0, 0), (0, 0), (12, 0), (12, 12)]):
        plan = walk.plan()
        assert (0 if plan.visible is None else int(plan.visible.sum())) == seen
        predictor.predict(plan, walk.store)
        assert int(walk.store.valid.sum()) == stored
        walk.decide(3 + step)

"""Vicinity refresh: the window that is fed, and when the whole canvas is."""

from typing import Any

import pytest
from tiny_decoding import SPEC, canvas_of
from walk import Walk, rows

from dllm.config import build, compose


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

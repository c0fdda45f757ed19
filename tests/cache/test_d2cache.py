"""d2Cache: which rows a forward feeds, the nucleus of attended rows, and gaps that are filled."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_decoding import SPEC
from walk import Walk, rows, seen

from dllm.cache.d2cache import inflate, nucleus
from dllm.models.spec import ModelSpec
from dllm.step.plan import ForwardKind, Plan


FLAT = "cache.sigma=1e6"
"""Every position as near to what is decided as any other: the confidence alone ranks."""


class Attended(Walk):
    """Forwards whose confidences and attention are written down; all attention goes to position 1,
    which is therefore fed in every step."""

    def __init__(self, *options: str, masks: int, block: int | None = None, spec: ModelSpec = SPEC):
        super().__init__("cache=d2cache", *options, masks=masks, spec=spec)
        self.canvas.block_end[0] = 3 + (block or masks)

    def forward(self, confidence: Sequence[float] | None = None) -> Plan:

        plan = self.plan()
        assert plan.taps is not None
        if (asked := plan.taps.confidence_of) is not None:
            known = [confidence] if confidence else torch.zeros(asked.shape)
            plan.taps.confidence = torch.as_tensor(known, dtype=torch.float64)
        plan.taps.influence = (torch.arange(self.store.slots) == 1).double()[None]
        return plan


RISING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def test_the_first_forward_computes_and_keeps_everything() -> None:
    walk = Attended(masks=8)
    plan = walk.forward(RISING)
    assert plan.kind is ForwardKind.REFRESH
    assert rows(plan) == list(range(11)) and isinstance(plan.write, torch.Tensor)
    assert plan.write.all()
    assert plan.taps is not None and plan.taps.rollout
    assert plan.taps.confidence_of is not None
    assert plan.taps.confidence_of.tolist() == [list(range(3, 11))]
    walk.decide(3)
    later = walk.forward()
    assert later.kind is ForwardKind.STEP
    assert seen(later) == list(range(11)) and isinstance(later.write, torch.Tensor)
    assert later.write.all()


def test_the_surest_masks_and_what_was_just_decided_are_fed() -> None:
    walk = Attended("cache.current_k=2", FLAT, masks=8)
    walk.forward(RISING)
    walk.decide(3)
    assert rows(walk.forward()) == [1, 3, 9, 10]
    walk.decide(10)
    assert rows(walk.forward()) == [1, 8, 9, 10]


@pytest.mark.parametrize(("fresh", "expected"), [("false", [1, 8, 9, 10]), ("true", [1, 4, 9, 10])])
def test_confidences_of_the_first_forward_or_of_the_last(fresh: str, expected: list[int]) -> None:
    """A row that was not computed (0) keeps what is known of it."""
    walk = Attended("cache.current_k=2", FLAT, f"cache.fresh_confidence={fresh}", masks=8)
    walk.forward(RISING)
    walk.decide(3)
    plan = walk.forward([0.65, 0, 0, 0, 0, 0.9, 0.5])  # of 4, 8, 9 and 10 among 4 to 10
    assert plan.taps is not None
    assert (plan.taps.confidence_of is not None) == (fresh == "true")
    walk.decide(10)
    assert rows(walk.forward()) == expected


@pytest.mark.parametrize(("count", "expected"), [(1, [3]), (2, [3, 5]), (3, [3, 5, 7])])
def test_masks_near_decided_positions_come_first(count: int, expected: list[int]) -> None:
    """The prompt counts as decided; at equal distances the left one."""
    walk = Attended(f"cache.current_k={count}", "cache.sigma=1", masks=8)
    walk.forward([0.5] * 8)
    walk.decide(6)
    assert rows(walk.forward()) == sorted({1, 6, *expected})


@pytest.mark.parametrize(
    ("search", "count", "expected"),
    [
        ("masks", 2, [[5, 6], [6, 8]]),
        ("masks", 3, [[5, 6, 10], [6, 7, 8]]),
        ("masks", 11, [[*range(5, 15)], [*range(6, 15)]]),
        ("block", 2, [[5, 6], [6, 10]]),
        ("block", 3, [[5, 6, 10], [6, 9, 10]]),
    ],
)
def test_search_range(search: str, count: int, expected: list[list[int]]) -> None:
    """A block of four, of which two are decided, then one more; the surest masks lie far ahead.

    In masks left: blocks of four before the first step, of two before the second."""
    walk = Attended(f"cache.search={search}", f"cache.current_k={count}", FLAT, masks=12, block=4)
    walk.forward([*RISING, 0.85, 0.9, 0.95, 1.0])
    found = []
    for decided in ((3, 4), (5,)):
        walk.decide(*decided)
        plan = rows(walk.forward())
        found.append([slot for slot in plan if slot not in (1, *decided)])
    assert found == expected


def test_the_row_before_predicts_in_shifted_models() -> None:
    """Also the prompt's last row, for the first position of the answer."""
    walk = Attended("cache.current_k=2", FLAT, masks=8, spec=replace(SPEC, logit_shift=1))
    walk.forward(RISING[::-1])
    walk.decide(10)
    assert rows(walk.forward()) == [1, 2, 3, 10]


def test_gaps_are_filled_where_asked() -> None:
    walk = Attended("cache.current_k=2", "cache.inflate_w=2", FLAT, masks=8)
    walk.forward([0.1, 0.2, 0.9, 0.2, 0.8, 0.2, 0.2, 0.2])
    walk.decide(10)
    assert rows(walk.forward()) == [1, 5, 6, 7, 10]


@pytest.mark.parametrize(
    ("p", "taken", "expected"),
    [
        (0.1, [], [0]),
        (0.5, [], [0]),
        (0.75, [], [0, 1]),
        # Shares are those of what is open: 3/6, 2/6, 1/6.
        (0.55, [0], [1]),
        (0.9, [0], [1, 2]),
    ],
)
def test_nucleus(p: float, taken: list[int], expected: list[int]) -> None:
    share = np.array([0.4, 0.3, 0.2, 0.1])
    still_open = ~np.isin(np.arange(4), taken)
    assert nucleus(share, p, still_open).nonzero()[0].tolist() == expected


@pytest.mark.parametrize(
    ("width", "expected"),
    [(4, [2, 3, 4, 5, 6, 11, 12, 13]), (3, [2, 6, 11, 12, 13]), (0, [2, 6, 11, 13])],
)
def test_inflate(width: int, expected: list[int]) -> None:
    selected = np.isin(np.arange(16), [2, 6, 11, 13])
    assert inflate(selected, width).nonzero()[0].tolist() == expected

"""Window-Diffusion's cache: which rows a forward feeds and sees, on LLaDA and on Dream."""

from dataclasses import replace

import pytest
import torch
from tiny_decoding import SPEC, random_model
from walk import Walk, first, rows, seen

from dllm.forward.predictor import Predictor
from dllm.step.plan import ForwardKind


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


def test_an_answer_that_was_cut_is_refreshed_in_every_step() -> None:
    """The phase's view of the tail holds no more."""
    walk = Walk("cache=window", "cache.outer_window=6", masks=12)
    for _ in range(2):
        plan = walk.plan(first(walk.canvas, 3))
        walk.decide(3)
    assert plan.kind_of(0) is ForwardKind.STEP
    walk.canvas.truncate(0, 13)
    for _ in range(2):
        plan = walk.plan(first(walk.canvas, 3))
        assert plan.kind_of(0) is ForwardKind.REFRESH and rows(plan) == list(range(13))
        walk.decide()


@pytest.mark.parametrize(("scope", "again"), [("once", [5, 6, 7]), ("phase", [3, 4, 5, 6, 7])])
def test_what_the_refresh_decided_is_fed_again(scope: str, again: list[int]) -> None:
    """Once, or for the whole phase; what the steps decide is fed for the whole phase."""
    walk = Walk("cache=window", f"cache.refreshed_tokens={scope}", masks=12)
    walk.plan()
    walk.decide(3, 4)
    plan = walk.plan(first(walk.canvas, 3))
    assert rows(plan) == [3, 4, 5, 6, 7]
    walk.decide()
    assert rows(walk.plan(first(walk.canvas, 3))) == again
    walk.decide(6)
    assert rows(walk.plan(first(walk.canvas, 3))) == [
        *([3, 4] if scope == "phase" else []),
        5,
        6,
        7,
        8,
    ]


def test_a_phase_ends_with_its_cycle() -> None:
    walk, predictor = (
        Walk("cache=window", "cache.refresh_cycle=3", masks=12),
        Predictor(random_model()),
    )
    kinds = []
    for step in range(7):
        plan = walk.plan(first(walk.canvas, 3))
        kinds.append(plan.kind_of(0).value)
        assert bool(walk.store.valid.any()) == (step % 3 > 0)
        predictor.predict(plan, walk.store)
        walk.decide(3 + step)
    assert kinds == ["refresh", "step", "step"] * 2 + ["refresh"]


@pytest.mark.parametrize(
    ("cache", "shift", "fed"),
    [
        ("window", 0, [3, 4, 5, 7]),
        ("window", 1, [2, 3, 4, 5, 6, 7]),
        ("window_dream", 0, [3, 4, 5, 6, 7]),
        ("window_dream", 1, [2, 3, 4, 5, 6, 7]),
    ],
)
def test_a_shifted_model_is_fed_the_rows_before(cache: str, shift: int, fed: list[int]) -> None:
    """3, 4 and 7 are wanted: rows 2, 3 and 6 predict them; the refresh has decided 5."""
    spec = replace(SPEC, logit_shift=shift)
    walk = Walk(f"cache={cache}", "cache.outer_window=6", masks=12, spec=spec)
    walk.plan()
    walk.decide(5)
    assert rows(walk.plan([3, 4, 7])) == fed

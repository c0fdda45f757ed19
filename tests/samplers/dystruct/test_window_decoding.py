"""Dystruct (reconstruction): what becomes of a window's tokens at the borders of its blocks.

Eight positions in two blocks of four, decoded from left to right; what the weld masks again lies
within a radius of the border and was committed below 0.7.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from scripted import Script, built
from tiny_decoding import SPEC, decode

from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from samplers.dystruct.sampler import Dystruct


PROMPT = (5, 6, 7)
OLD, NEW = 9, 10


@cache
def rule() -> Dystruct:
    found = built(
        "sampler=dystruct",
        "sampler.delimiter_ids=[4]",
        "sampler.structure.length_mode=all",
        "sampler.structure.min_block=4",
        "sampler.structure.max_block=4",
        "sampler.schedule.instability_weight=0",
        "sampler.region.smallest_window=1",
        "sampler.quota=false",
        "sampler.weld_radius=1",
        "sampler.stop_at_end=false",
    )
    assert isinstance(found, Dystruct)
    return found


def welded(
    weld: Sequence[tuple[float, float]],
    *,
    before: tuple[float, float] = (0.6, 0.5),
    forwards: int = 4,
    window: int = 8,
    length: int = 8,
    first: int = NEW,
    **options: Any,
) -> Outcome:
    """Positions 3 and 4 are the last ones of their blocks, committed with the probabilities
    `before`; the forwards of the weld, after these `forwards`, predict other tokens there."""
    region = replace(rule().region, largest_window=window)
    welding = replace(rule(), region=region, weld_steps=len(weld), **options)
    sure = [(OLD, 0.95)] * 3
    behind = [(OLD, 0.95)] * (length - 5)
    plain = [*sure, (OLD, before[0]), (OLD, before[1]), *behind]
    script = [plain] * forwards
    script += [[*sure, (first, left), (NEW, right), *behind] for left, right in weld]
    prompt = Prompt("one", PROMPT, length)
    return decode(welding, [prompt], Script(script, len(PROMPT)), record=True)["one"]


def changes(outcome: Outcome) -> list[tuple[list[int], list[int], list[int]]]:
    """Positions committed, masked again and overwritten by each forward."""
    assert outcome.trace is not None
    return [(s.positions, s.remasked, [at for at, _ in s.edits]) for s in outcome.trace.steps]


@pytest.mark.parametrize("window", [8, 4])
def test_unsure_edges_are_decoded_anew(window: int) -> None:
    """What the last forward chose at an edge is not even committed; also between two windows."""
    outcome = welded([(0.8, 0.9)], window=window)
    assert changes(outcome) == [
        ([0, 1, 2], [], []),
        ([3], [], []),
        ([5, 6, 7], [], []),
        ([], [3], []),
        ([3, 4], [], []),
    ]
    assert list(outcome.tokens) == [OLD] * 3 + [NEW] * 2 + [OLD] * 3


def test_the_next_window_opens_after_a_weld() -> None:
    outcome = welded([(0.8, 0.9)], window=4, length=12)
    assert outcome.trace is not None
    assert [s.opened for s in outcome.trace.steps if s.opened] == [(0, 4), (4, 8), (8, 12)]
    assert changes(outcome)[4:] == [([3, 4], [], []), ([8, 9, 10, 11], [], [])]


def test_a_weld_that_is_less_likely_is_undone() -> None:
    """Old tokens come back: the one that was masked again and the one that was never committed."""
    outcome = welded([(0.5, 0.59)])
    assert changes(outcome)[-1] == ([3, 4], [], [])
    assert list(outcome.tokens) == [OLD] * 8


def test_a_weld_that_is_as_likely_is_kept() -> None:
    same = (0.6, 0.6)
    outcome = welded([same], before=same)
    assert changes(outcome)[-2:] == [([], [3], []), ([3, 4], [], [])]
    assert list(outcome.tokens)[3:5] == [NEW] * 2


def test_what_was_undone_is_as_unsure_as_before() -> None:
    """The next window's edges reach back to it: what came back with 0.5 is masked again, however
    sure the token was that stood there in between."""
    weld, reach = (0.9, 0.2), {"window": 4, "length": 12, "weld_radius": 5}
    outcome = welded([weld], before=(0.5, 0.6), **reach)
    assert outcome.trace is not None
    masked = [sorted(step.remasked) for step in outcome.trace.steps if step.remasked]
    assert masked[0] == [3] and masked[1][:2] == [3, 4]


def test_any_token_may_be_masked_again() -> None:
    """Also the one with the id 0, which is another model's mask."""
    spec = replace(SPEC, mask_id=SPEC.vocab_size - 1)
    sure = [(9, 0.95)] * 3
    plain = [*sure, (0, 0.6), (0, 0.5), *sure]
    less = [*sure, (10, 0.5), (10, 0.55), *sure]
    prompt = Prompt("one", PROMPT, 8)
    rule_ = replace(rule(), weld_steps=1)
    script = Script([*[plain] * 4, less], len(PROMPT), spec)
    outcome = decode(rule_, [prompt], script, record=True)["one"]
    assert changes(outcome)[3:] == [([], [3], []), ([3, 4], [], [])]
    assert list(outcome.tokens)[3:5] == [0, 0]


def test_a_weld_is_undone_in_its_last_forward() -> None:
    """What an earlier forward of the weld has committed is overwritten."""
    outcome = welded([(0.65, 0.2), (0.65, 0.4)])
    assert changes(outcome)[-2:] == [([3], [], []), ([4], [], [3])]
    assert list(outcome.tokens) == [OLD] * 8
    same = welded([(0.65, 0.2), (0.65, 0.4)], first=OLD)
    assert changes(same)[-2:] == [([3], [], []), ([4], [], [])]
    kept = welded([(0.65, 0.2), (0.65, 0.47)])
    assert changes(kept)[-2:] == [([3], [], []), ([4], [], [])]
    assert list(kept.tokens)[3:5] == [NEW] * 2


@pytest.mark.parametrize(
    ("radius", "threshold", "masked"),
    [
        (1, 0.55, []),
        (1, 0.65, [3]),
        (1, 1.0, [3]),
        (2, 1.0, [2, 3, 5]),
        (9, 1.0, [0, 1, 2, 3, 5, 6, 7]),
        (0, 1.0, []),
    ],
)
def test_an_edge_is_near_and_unsure(radius: int, threshold: float, masked: list[int]) -> None:
    """What is sure is kept; what the window's last forward chose goes back, too; the prompt is no
    edge."""
    outcome = welded([(0.8, 0.9)], weld_radius=radius, weld_threshold=threshold)
    committed, again, _ = changes(outcome)[3]
    assert again == masked
    assert committed == ([] if radius else [4])
    assert len(changes(outcome)) == (5 if radius else 4)


def test_the_last_forward_commits_its_edges() -> None:
    """No weld is begun that could not end, and one that is under way is cut short."""
    outcome = welded([(0.8, 0.9)], max_forwards=4)
    assert changes(outcome)[-1] == ([4], [], [])
    assert list(outcome.tokens) == [OLD] * 8
    cut = welded([(0.8, 0.9), (0.8, 0.9)], max_forwards=5)
    assert changes(cut)[-1] == ([3, 4], [], [])
    assert list(cut.tokens)[3:5] == [NEW] * 2

"""Sequences that change their length: canvas, notes and trace agree."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_decoding import EOS, MASK

from dllm.engine.resizing import end_answer, fill_at_once, resize
from dllm.engine.row import Row, Ticket
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.decision import RowChanges
from dllm.step.eos import EosPolicy
from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace


PROMPT, WORD = (5, 6, 7), 9
NONE = np.zeros(0, dtype=np.int64)


def sequence(answer: list[int], limit: int = 10) -> tuple[Canvas, Row]:
    """Row 1 of a canvas: an answer whose first step has just committed positions 0 and 3; the
    sequence may grow up to `limit` positions."""
    canvas = Canvas.empty(16, MASK, (EOS,))
    for size in (4, len(answer)):
        length = len(PROMPT) + size
        prompt = Prompt(str(size), PROMPT, size)
        canvas.append(prompt, Layout(length, limit, length, 0), torch.Generator())
    canvas.tokens[1, 3:length] = answer
    trace = Trace("one", len(answer), MASK)
    row = Row(ticket=Ticket(0), prompt=prompt, entered=0.0, trace=trace, earlier=None)
    row.committed = sum(token != MASK for token in answer)
    step = Step(ForwardKind.STEP, 4, 0, positions=[0, 3], tokens=[WORD, WORD], scores=[0.5, 0.4])
    trace.steps.append(step)
    return canvas, row


def changed(**changes: Any) -> RowChanges:
    scores = np.zeros(0)
    return RowChanges(NONE, NONE, scores, NONE, NONE, NONE, forced=False, **changes)


def last(row: Row) -> Step:
    assert row.trace is not None
    return row.trace.steps[-1]


@pytest.mark.parametrize(
    ("asked", "tail", "answer", "truncated"),
    [
        (9, -1, [WORD, MASK, MASK, WORD, MASK, MASK], False),
        (9, EOS, [WORD, MASK, MASK, WORD, EOS, EOS], False),
        (10, -1, [WORD, MASK, MASK, WORD, MASK, MASK, MASK], False),
        (11, -1, [WORD, MASK, MASK, WORD, MASK, MASK, MASK], True),
        (7, -1, [WORD, MASK, MASK, WORD], False),
    ],
)
def test_growth(asked: int, tail: int, answer: list[int], truncated: bool) -> None:
    """As far as the limit of ten positions, with masks or with a token."""
    canvas, row = sequence([WORD, MASK, MASK, WORD])
    resize(canvas, 1, row, changed(length=asked, tail=tail))
    assert canvas.generated(1).tolist() == answer
    assert canvas.length.tolist() == [7, 3 + len(answer)]
    assert row.truncated == truncated
    assert row.committed == 2
    assert last(row).length == (len(answer) if asked > 7 else None)
    assert last(row).fill == ((4, EOS) if tail == EOS else None)


def test_a_cut_takes_back_what_lies_behind_it() -> None:
    canvas, row = sequence([WORD, MASK, MASK, WORD])
    resize(canvas, 1, row, changed(length=6))
    assert canvas.generated(1).tolist() == [WORD, MASK, MASK]
    assert (row.committed, row.truncated) == (1, False)
    assert (last(row).positions, last(row).scores, last(row).length) == ([0], [0.5], 3)


@pytest.mark.parametrize(
    ("inserted", "answer", "truncated"),
    [
        (((6, 1), (3, 2)), [WORD, MASK, MASK, MASK, MASK, WORD, MASK], False),
        (((3, 3),), [WORD, MASK, MASK, MASK, MASK, MASK, WORD], False),
        (((6, 2), (3, 2)), [WORD, MASK, MASK, MASK, WORD, MASK, MASK], True),
    ],
)
def test_insertions(
    inserted: tuple[tuple[int, int], ...], answer: list[int], truncated: bool
) -> None:
    """Behind the positions named, from right to left, while there is room."""
    canvas, row = sequence([WORD, MASK, MASK, WORD])
    resize(canvas, 1, row, changed(inserted=inserted))
    assert canvas.generated(1).tolist() == answer
    assert row.truncated == truncated


def test_what_was_filled_moves_with_an_insertion() -> None:
    """A cut takes back what was committed, wherever the filled positions lie by then."""
    canvas, row = sequence([WORD, EOS, MASK, WORD])
    fill_at_once(canvas, 1, row)
    assert row.given == {5}
    before = row.committed
    resize(canvas, 1, row, changed(inserted=((5, 1), (3, 2))))
    assert canvas.generated(1).tolist() == [WORD, MASK, MASK, EOS, EOS, MASK, EOS]
    assert row.given == {7}
    resize(canvas, 1, row, changed(length=7))
    assert canvas.generated(1).tolist() == [WORD, MASK, MASK, EOS]
    # Of the two end tokens that were cut off one had been committed.
    assert row.committed == before - 1 and not row.given


@pytest.mark.parametrize(
    ("policy", "answer", "left_open", "committed"),
    [
        (EosPolicy.FILL_AFTER_BLOCK, [WORD, EOS, EOS, EOS], None, 3),
        (EosPolicy.KEEP_BLOCK, [WORD, EOS], None, 2),
        (EosPolicy.STOP_AFTER_BLOCK, [WORD, EOS, MASK, WORD], 5, 3),
        (EosPolicy.FILL_AT_ONCE, [WORD, EOS, MASK, WORD], None, 3),
    ],
)
def test_the_end_of_an_answer(
    policy: EosPolicy, answer: list[int], left_open: int | None, committed: int
) -> None:
    canvas, row = sequence([WORD, EOS, MASK, WORD])
    end_answer(canvas, 1, row, 5, policy)
    assert row.finished
    assert canvas.generated(1).tolist() == answer
    assert (row.left_open, row.committed) == (left_open, committed)


def test_an_end_token_fills_the_rest_once() -> None:
    canvas, row = sequence([MASK, EOS, MASK, WORD])
    fill_at_once(canvas, 1, row)
    assert canvas.generated(1).tolist() == [MASK, EOS, EOS, EOS]
    assert (last(row).fill, row.finished) == ((2, EOS), False)
    last(row).fill = None
    fill_at_once(canvas, 1, row)
    assert last(row).fill is None
    without, row = sequence([MASK, WORD, MASK, WORD])
    fill_at_once(without, 1, row)
    assert without.generated(1).tolist() == [MASK, WORD, MASK, WORD]


def test_a_cut_takes_back_no_more_than_was_committed() -> None:
    """What was filled never counted."""
    canvas, row = sequence([WORD, EOS, MASK, WORD])
    before = row.committed
    fill_at_once(canvas, 1, row)
    resize(canvas, 1, row, changed(length=6))
    assert canvas.generated(1).tolist() == [WORD, EOS, EOS]
    assert row.committed == before - 1 and row.given == {5}
    resize(canvas, 1, row, changed(length=5))
    assert row.committed == before - 1 and not row.given
    canvas, row = sequence([WORD, WORD])
    before = row.committed
    resize(canvas, 1, row, changed(length=9, tail=EOS))
    resize(canvas, 1, row, changed(length=6))
    assert canvas.generated(1).tolist() == [WORD, WORD, EOS] and row.committed == before

"""Sequences that change their length: the canvas and the loop's notes stay in step.

Lengths and positions are those of the canvas (prompt included); `b` is the sequence's row.
"""

import numpy as np

from dllm.engine.row import Row
from dllm.step.canvas import Canvas
from dllm.step.decision import RowChanges
from dllm.step.eos import EosPolicy, first_eos


def resize(canvas: Canvas, b: int, row: Row, changes: RowChanges) -> None:
    """The insertions and the new length of one decision."""
    for position, count in changes.inserted:
        room = int(canvas.limit[b] - canvas.length[b])
        canvas.insert(b, position + 1, min(count, room))
        row.given = {at + min(count, room) if at > position else at for at in row.given}
        row.truncated |= count > room
    length, before = changes.length, int(canvas.length[b])
    if length is None:
        return
    if length < before:
        if row.trace is not None:
            # What this step committed beyond never happened.
            row.trace.steps[-1].cut(length - int(canvas.prompt_length[b]))
        shorten(canvas, b, row, length)
    elif length > before:
        # As far as there is room, with masks or with the token `tail`.
        after = min(length, int(canvas.limit[b]))
        row.truncated |= length > after
        start = int(canvas.prompt_length[b])
        canvas.grow(b, after - before)
        row.resized(after - start)
        if changes.tail >= 0:
            fill(canvas, b, row, before, changes.tail)


def shorten(canvas: Canvas, b: int, row: Row, length: int) -> None:
    """Ends a sequence at `length`; what was committed beyond no longer counts."""
    if length >= canvas.length[b]:
        return
    beyond = canvas.tokens[b, length : canvas.length[b]]
    row.committed -= int((beyond != canvas.mask_id).sum())
    row.committed += sum(at >= length for at in row.given)
    row.given = {at for at in row.given if at < length}
    canvas.truncate(b, length)
    row.resized(length - int(canvas.prompt_length[b]))


def end_answer(canvas: Canvas, b: int, row: Row, end: int, policy: EosPolicy) -> None:
    """Finishes a sequence whose answer ends before `end`."""
    row.finished = True
    if policy.shortens:
        shorten(canvas, b, row, end)
    elif policy is EosPolicy.STOP_AFTER_BLOCK:
        row.left_open = end
    elif policy is not EosPolicy.FILL_AT_ONCE:
        fill(canvas, b, row, end, canvas.eos_ids[0])


def fill_at_once(canvas: Canvas, b: int, row: Row) -> None:
    """Sets what follows the first end token to that token; the sequence may go on before it."""
    start = int(canvas.prompt_length[b])
    end = first_eos(canvas.generated(b), canvas.ends(b))
    if end is not None:
        fill(canvas, b, row, start + end + 1, int(canvas.tokens[b, start + end]))


def fill(canvas: Canvas, b: int, row: Row, start: int, token: int) -> None:
    """Sets everything from `start` on to a token, where anything is another one."""
    here = canvas.tokens[b, start : canvas.length[b]]
    row.given.update((start + np.flatnonzero(here == canvas.mask_id)).tolist())
    if (here != token).any():
        canvas.fill(b, start, token)
        row.filled(start - int(canvas.prompt_length[b]), token)

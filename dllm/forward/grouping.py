"""Which sequences of a batch are computed together.

A row of padding passes no feed-forward but all of the attention, and in a ragged batch one
sequence's whole canvas would pad the others' blocks. Sequences share a forward where one more would
cost more than it saves.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Machine:
    """What forwards cost, in rows of padding."""

    forward: int
    """One more forward: its operations' starts, the weights read again."""
    most: float
    """Above so many rows together sequences are not faster than one after the other."""
    picks: bool
    """Whether sequences that are no neighbours share a forward: what is stored of them is copied
    for each of its layers then."""


CPU = Machine(forward=32, most=512, picks=False)
"""Measured on 4 to 8 layers of 192 to 512: eight sequences of 32 rows take 0.6 to 0.7 of their time
alone, of 80 rows 0.85 to 0.9, of 320 rows 1.1 to 1.3, their states no more in the core's cache.
Picking would save forwards (the `batch` bench's queue under dual at batch 16: 92 instead of 154)
that are worth 3 % by this count; the copies take 7 % of a layer (14 sequences of 224 slots)."""
ACCELERATOR = Machine(forward=1600, most=inf, picks=True)
"""Measured on an H200 with LLaDA-8B's shape (results/gpu/forward.md): 32, 64 and 384 rows take the
same time, by the host 14 to 24 ms, in which 500 to 900 rows are computed when there are 2,048; a
row of padding, with attention's third of a layer's weights, costs a third of that. Of picking it is
counted, not measured, that it pays: on the `batch` bench's queue under dual it saves 12 % at batch
16 and 32."""


def groups(
    slots: Int[np.ndarray, "entries rows"], machine: Machine
) -> list[tuple[Int[np.ndarray, "part"], int]]:
    """The entries, ascending, and the rows of each forward; 0 rows = none is needed.

    The partition of the lowest cost into neighbours; where the machine picks, neighbours are those
    of about as many rows. Padding has slot -1.
    """
    fed = slots >= 0
    rows = np.where(fed.any(axis=1), slots.shape[1] - fed[:, ::-1].argmax(axis=1), 0)
    order = rows.argsort(kind="stable") if machine.picks else np.arange(len(rows))
    widths = rows[order].tolist()
    # The cheapest way to compute the entries before each one: its cost, and its last forward.
    best: list[tuple[float, tuple[int, int, int]]] = [(0, (0, 0, 0))]
    for end in range(1, len(widths) + 1):
        found, width = [], 0
        for first in range(end - 1, -1, -1):
            width = max(width, widths[first])
            together = (end - first) * width
            if together > machine.most and found:
                break
            cost = best[first][0] + together + (machine.forward if width else 0)
            found.append((cost, (first, end, width)))
        best.append(min(found))
    chosen, end = [], len(widths)
    while end:
        first, end, width = best[end][1]
        chosen.append((np.sort(order[first:end]), width))
        end = first
    return chosen[::-1]

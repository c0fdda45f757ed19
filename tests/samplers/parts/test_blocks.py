"""Rows of a view as their blocks."""

import torch
from tiny_decoding import MASK, canvas_of

from dllm.step.prediction import View
from samplers.parts.blocks import BlockRows


def view() -> View:
    """Two sequences with blocks [4, 7) and [5, 9), at rows that begin before them and end behind;
    the first one has a row less."""
    canvas = canvas_of([MASK] * 8, [MASK] * 8)
    canvas.enter_block(0, 4, 7)
    canvas.enter_block(1, 5, 9)
    for row, generator in enumerate(canvas.generators):
        generator.manual_seed(row)
    positions = torch.tensor([[3, 4, 6, 8, -1], [4, 5, 7, 8, 9]])
    logits = torch.zeros(2, 5, 4)
    return View(canvas, positions, logits, positions >= 0)


def test_rows_have_their_place_in_the_block() -> None:
    block = BlockRows(view())
    assert block.width == 4
    assert block.inside.tolist() == [[True, True, True, False], [True] * 4]
    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]])
    dense = block.dense(rows, -1)
    assert dense.tolist() == [[2, -1, 3, -1], [7, -1, 8, 9]]
    assert block.rows(dense).tolist() == [[0, 2, 3, 0, 0], [0, 7, 8, 9, 0]]
    flags = block.dense(torch.ones(2, 5, dtype=torch.bool), False)
    assert flags.tolist() == [[True, False, True, False], [True, False, True, True]]


def test_each_sequence_draws_for_its_own_block() -> None:
    both = view()
    drawn = BlockRows(both).uniform(both)
    for row, size in enumerate((3, 4)):
        expected = torch.rand(size, generator=torch.Generator().manual_seed(row))
        assert drawn[row].tolist() == [*expected.tolist(), *[0.0] * (4 - size)]

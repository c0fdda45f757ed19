"""The canvas: what one decision changes and what it leaves alone."""

import numpy as np
import pytest
import torch
from tiny_decoding import EOS, MASK, canvas_of

from dllm.errors import ConfigError
from dllm.step.decision import Decision, to_host
from dllm.step.plan import pad_positions


def test_masked_leaves_out_prompt_and_padding() -> None:
    canvas = canvas_of([MASK, 5, MASK], [MASK], prompt=(MASK, 4))
    assert canvas.masked().tolist() == [
        [False, False, True, False, True],
        [False, False, True, False, False],
    ]


def test_a_decision_commits_edits_and_remasks_where_it_says() -> None:
    canvas = canvas_of([MASK, 8, 9], [MASK, MASK, MASK])
    positions = np.array([[3, 4, 5], [3, 4, 5]])
    decision = Decision(
        commit=torch.tensor([[True, False, False], [False, True, True]]),
        tokens=torch.tensor([[11, 12, 13], [14, 15, 16]]),
        score=torch.zeros(2, 3),
        edit=torch.tensor([[False, True, False], [False] * 3]),
        remask=torch.tensor([[False, False, True], [False] * 3]),
    )
    canvas.apply(to_host(decision, positions, torch.ones(2, 3, dtype=torch.bool), False, None))
    assert canvas.generated(0).tolist() == [11, 12, MASK]
    assert canvas.generated(1).tolist() == [MASK, 15, 16]
    assert canvas.tokens[:, :3].tolist() == [[5, 6, 7]] * 2
    assert canvas.step.tolist() == canvas.step_in_block.tolist() == [1, 1]


def test_entering_a_block_counts_its_masks_and_restarts_its_steps() -> None:
    canvas = canvas_of([MASK, 5, MASK, MASK])
    canvas.step_in_block[0] = 7
    canvas.enter_block(0, 3, 6)
    assert (canvas.block_index[0], canvas.block_masks[0], canvas.step_in_block[0]) == (0, 2, 0)
    canvas.tokens[0, 3] = 4
    assert canvas.masked_in_block(0) == 1


def test_keeping_rows_keeps_everything_of_them_in_order() -> None:
    canvas = canvas_of([4], [5, 5], [6, 6, 6])
    canvas.step[:] = [10, 11, 12]
    canvas.keep([2, 0])
    assert [canvas.generated(row).tolist() for row in range(2)] == [[6, 6, 6], [4]]
    assert canvas.step.tolist() == [12, 10]
    assert [prompt.sample_id for prompt in canvas.prompts] == ["2", "0"]
    assert canvas.width == 6


def test_fill_truncate_and_grow_stay_inside_their_row() -> None:
    canvas = canvas_of([MASK] * 4, [9] * 6)
    canvas.fill(0, 5, EOS)
    assert canvas.generated(0).tolist() == [MASK, MASK, EOS, EOS]
    canvas.enter_block(0, 3, 7)
    canvas.truncate(0, 4)
    assert canvas.generated(0).tolist() == [MASK]
    assert canvas.block_end[0] == 4
    canvas.grow(0, 3)
    assert canvas.generated(0).tolist() == [MASK] * 4
    assert canvas.generated(1).tolist() == [9] * 6
    with pytest.raises(ConfigError, match=r"growing to 10 positions exceeds the canvas of 9"):
        canvas.grow(0, 3)


def test_positions_are_padded_on_the_right() -> None:
    wanted = np.array([[True, False, True], [False, False, False], [False, True, False]])
    assert pad_positions(wanted).tolist() == [[0, 2], [-1, -1], [1, -1]]
    assert pad_positions(np.zeros((2, 3), dtype=bool)).shape == (2, 0)

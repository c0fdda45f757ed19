"""Blocks counted from the canvas's first position: where they lie beside the prompt."""

from dataclasses import replace

import pytest
import torch
from scripted import built
from tiny_decoding import EOS, MASK, SPEC

from dllm.step.canvas import Canvas, Prompt


TRAINED = replace(SPEC, attention="block_causal", block_size=4)


@pytest.mark.parametrize(
    ("prompt", "blocks"),
    [
        (4, [(4, 8), (8, 12)]),
        (5, [(4, 8), (8, 12), (12, 16)]),
        (6, [(4, 8), (8, 12), (12, 16)]),
        (7, [(4, 8), (8, 12), (12, 16)]),
    ],
)
def test_blocks_beside_a_prompt(prompt: int, blocks: list[tuple[int, int]]) -> None:
    """The first one may begin within the prompt, the last one may end behind what was asked."""
    region = built("sampler=sdar").region
    given = Prompt("one", (5,) * prompt, 8)
    layout = region.layout(given, TRAINED)
    canvas = Canvas.empty(20, MASK, (EOS,))
    canvas.append(given, layout, torch.Generator())
    found = []
    while (block := region.next_block(canvas, 0)) is not None:
        found.append(block)
        canvas.enter_block(0, *block)
        assert region.eligible(canvas)[0].nonzero()[0].tolist() == [
            position for position in range(*block) if position >= prompt
        ]
    assert found == blocks
    assert (layout.length, layout.kept) == (blocks[-1][1], prompt + 8)


@pytest.mark.parametrize(("positions", "length"), [(12, 16), (13, 13), (14, 14), (16, 16)])
def test_the_last_block_ends_with_the_models_positions(positions: int, length: int) -> None:
    """13 are asked for; what the model has no room for at all is left to the session to refuse."""
    spec = replace(TRAINED, max_positions=positions)
    layout = built("sampler=sdar").region.layout(Prompt("one", (5,) * 5, 8), spec)
    assert (layout.length, layout.kept) == (length, 13)

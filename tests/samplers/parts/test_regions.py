"""Regions: how a sequence lies on its canvas, which blocks it is decoded in, which positions are
eligible in each."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from scripted import built
from tiny_decoding import EOS, MASK, NOISE, SPEC

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas, Layout, Prompt


TRAINED = replace(SPEC, attention="block_causal", block_size=4)
WHOLE = replace(NOISE, block_size=4)


def region(options: str) -> Any:
    name, *more = options.split()
    given = [f"sampler.region.{option}" for option in more]
    return built("sampler=threshold", f"sampler/region={name}", *given).region


def laid(
    options: str, spec: ModelSpec, length: int, prompt: int = 3, masks: int | None = None
) -> tuple[Any, Canvas, Layout]:
    """A canvas of one sequence; `masks`: to how many positions its answer has grown or shrunk."""
    found, asked = region(options), Prompt("one", (5,) * prompt, length)
    layout = found.layout(asked, spec)
    canvas = Canvas.empty(64, MASK, (EOS,))
    canvas.append(asked, layout, torch.Generator())
    if masks is not None:
        canvas.length[0] = prompt + masks
    return found, canvas, layout


def blocks(found: Any, canvas: Canvas) -> list[tuple[int, int]]:
    visited = []
    while (block := found.next_block(canvas, 0)) is not None:
        visited.append(block)
        canvas.enter_block(0, *block)
    return visited


@pytest.mark.parametrize(
    ("options", "spec", "length", "masks", "expected"),
    [
        ("fixed block_length=4", SPEC, 8, None, [(3, 7), (7, 11)]),
        ("fixed block_length=null", SPEC, 8, None, [(3, 11)]),
        ("fixed block_length=4", SPEC, 8, 6, [(3, 7), (7, 9)]),  # cut short within a block
        ("uneven block_length=4", SPEC, 9, None, [(3, 7), (7, 11), (11, 12)]),
        ("uneven block_length=null", SPEC, 9, None, [(3, 12)]),
        ("streaming window=2", SPEC, 9, None, [(3, 12)]),
        ("growing block_length=4 initial_length=6", SPEC, 12, None, [(3, 7), (7, 11)]),
        ("growing block_length=4 initial_length=6", SPEC, 12, 8, [(3, 7), (7, 11)]),
        ("whole", WHOLE, 5, None, [(3, 7), (7, 11)]),
        ("whole", WHOLE, 8, None, [(3, 7), (7, 11)]),
        ("inferred largest_window=6 smallest_window=1", SPEC, 12, None, [(3, 9)]),
        ("aligned block_length=null", TRAINED, 6, None, [(0, 4), (4, 8), (8, 12)]),
    ],
)
def test_blocks(
    options: str,
    spec: ModelSpec,
    length: int,
    masks: int | None,
    expected: list[tuple[int, int]],
) -> None:
    found, canvas, _ = laid(options, spec, length, masks=masks)
    assert blocks(found, canvas) == expected


@pytest.mark.parametrize(
    ("options", "spec", "length", "expected"),
    [
        ("fixed block_length=4", SPEC, 8, Layout(11, 11, 11, 0)),
        ("fixed block_length=4", TRAINED, 8, Layout(11, 11, 11, 4)),
        ("streaming window=2", SPEC, 9, Layout(12, 12, 12, 0)),
        ("growing block_length=4 initial_length=6", SPEC, 12, Layout(9, 15, 15, 0)),
        ("growing block_length=4 initial_length=6", SPEC, 4, Layout(7, 7, 7, 0)),
        ("growing block_length=4 initial_length=6", SPEC, 80, Layout(9, 64, 64, 0)),
        ("inferred largest_window=6 smallest_window=1", SPEC, 12, Layout(9, 15, 15, 0)),
        ("whole", WHOLE, 5, Layout(11, 11, 11, 4)),
        ("whole", WHOLE, 8, Layout(11, 11, 11, 4)),
        ("whole", WHOLE, 9, Layout(15, 15, 15, 4)),
        ("adaptive delimiter_threshold=null", SPEC, 8, Layout(11, 11, 11, 0)),
    ],
)
def test_layout(options: str, spec: ModelSpec, length: int, expected: Layout) -> None:
    """A growing answer has room for what was asked, or for the model's positions."""
    assert laid(options, spec, length)[2] == expected


def test_a_window_slides_on() -> None:
    """The masks of two positions from the first mask on, decided ones between them included."""
    found, canvas, _ = laid("streaming window=3", SPEC, 6)
    canvas.enter_block(0, 3, 9)
    for decided, open_ in ((4, [3, 5]), (3, [5, 6, 7]), (6, [5, 7]), (5, [7, 8])):
        canvas.tokens[0, decided] = 9
        assert found.eligible(canvas)[0].nonzero()[0].tolist() == open_


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("fixed block_length=4", 3),
        ("fixed block_length=null", 1),
        ("uneven block_length=5", 3),
        ("uneven block_length=null", 1),
        ("streaming window=2", 1),
    ],
)
def test_blocks_that_are_known_in_advance(options: str, count: int) -> None:
    assert region(options).blocks(12) == count


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "aligned block_length=null",
            "sampler/region=aligned: the number of blocks depends on the prompt; use a rule with "
            "steps per block (sampler=sdar)",
        ),
        ("whole", "sampler/region=whole: the number of blocks depends on the model"),
        ("growing", "sampler/region=growing: the number of blocks is not known in advance"),
        ("inferred", "sampler/region=inferred: the number of windows is not known in advance"),
        (
            "adaptive",
            "sampler/region=adaptive finds its blocks while decoding: rules whose steps are laid "
            "out over the blocks in advance can't use it",
        ),
    ],
)
def test_blocks_that_are_not(options: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        region(options).blocks(8)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("options", "spec", "line"),
    [
        (
            "whole",
            SPEC,
            "sampler/region=whole: the llada model has no blocks counted from the end of the "
            "prompt",
        ),
        (
            "growing",
            TRAINED,
            "sampler/region=growing: a growing canvas needs full attention; the llada model's is "
            "block_causal",
        ),
        (
            "inferred",
            TRAINED,
            "sampler/region=growing: a growing canvas needs full attention; the llada model's is "
            "block_causal",
        ),
        (
            "adaptive",
            TRAINED,
            "sampler/region=adaptive: the llada model's attention is block_causal, its blocks are "
            "not free; use sampler/region=aligned",
        ),
    ],
)
def test_models_that_a_region_does_not_fit(options: str, spec: ModelSpec, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        laid(options, spec, 8)
    assert str(error.value) == line


def test_equal_blocks_divide_the_answer() -> None:
    region("fixed block_length=4").validate(8)
    region("fixed block_length=null").validate(7)
    region("uneven block_length=4").validate(7)
    with pytest.raises(ConfigError) as error:
        region("fixed block_length=4").validate(6)
    assert str(error.value) == "sampler.region.block_length=4 does not divide gen_length=6"

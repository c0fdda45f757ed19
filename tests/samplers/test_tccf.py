"""TCCF: what leads from the first phase to the second, and what it refuses."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scripted import built
from tiny_decoding import EOS, MASK, SPEC, canvas_of, decode_written

from dllm.errors import ConfigError
from dllm.models.tokenizers import load_tokenizer
from dllm.step.canvas import Prompt
from samplers.adablock import AdaptiveBlocks
from samplers.tccf import TCCF, TwoPhases


TOKENIZER = Path(__file__).parents[2] / "dllm" / "models" / "tiny" / "tiny-sdar"
TRAINED = replace(SPEC, attention="block_causal", block_size=4, max_positions=24)
OUTCOME = decode_written(built("sampler=threshold", "sampler.region.block_length=4"), [9] * 8)


def tccf(*options: str) -> TCCF:
    given = ["sampler.critic_ids=[8,9]", "sampler.final_gen_length=6", *options]
    found = built("sampler=tccf", *given)
    assert isinstance(found, TCCF)
    return found


def following(rule: TCCF, thought: Sequence[int], prompt: Prompt) -> Prompt:
    found = rule.next_phase(prompt, replace(OUTCOME, tokens=tuple(thought)), TRAINED)
    assert isinstance(found, Prompt)
    return found


@pytest.mark.parametrize(
    ("thought", "kept"),
    [
        ([4, 5, 6, 7], [4, 5, 6, 7]),
        ([4, 5, EOS, 7], [4, 5]),
        ([4, 5, 12, EOS], [4, 5]),
        ([4, MASK, 6, 7], [4]),
        ([EOS, 5], []),
    ],
)
def test_the_thought_goes_on_with_the_critic(thought: list[int], kept: list[int]) -> None:
    """Up to its first end token, stop token or mask; what is left of the model's positions is
    the second phase's budget."""
    first = Prompt("one", (5, 6, 7), 8, stop_ids=(12,))
    then = following(tccf(), thought, first)
    assert then == Prompt("one", (5, 6, 7, *kept, 8, 9), 6, None, phase=1)
    long = following(tccf(), thought, Prompt("one", (5,) * 15, 8, stop_ids=(12,)))
    assert long.gen_length == min(6, 24 - 15 - len(kept) - 2)


def test_without_room_the_thought_is_the_answer() -> None:
    outcome = replace(OUTCOME, tokens=(4, 5))
    for length, room in ((19, True), (20, False)):
        found = tccf().next_phase(Prompt("one", (5,) * length, 2), outcome, TRAINED)
        assert isinstance(found, Prompt) == room
        assert room or found == replace(outcome, truncated=True)


@pytest.mark.parametrize(
    ("length", "tokens", "truncated"), [(6, (4, 5), False), (5, (4, 5), True), (5, (4, EOS), False)]
)
def test_an_answer_cut_by_the_models_positions(
    length: int, tokens: tuple[int, ...], truncated: bool
) -> None:
    last = Prompt("one", (5, 6), length, None, phase=1)
    found = tccf().next_phase(last, replace(OUTCOME, tokens=tokens), TRAINED)
    assert found == replace(OUTCOME, tokens=tokens, truncated=truncated)


def test_texts_are_looked_up_in_the_tokenizer() -> None:
    tokenizer = load_tokenizer(TOKENIZER)
    unbound = tccf("sampler.critic_ids=null", "sampler.critic=so")
    prompt = Prompt("one", (5, 6), 8)
    with pytest.raises(ConfigError, match=r"sampler\.critic needs a tokenizer"):
        unbound.layout(prompt, TRAINED)
    assert unbound.with_tokenizer(tokenizer).critic_ids == tokenizer.encode("so")
    assert tccf().with_tokenizer(tokenizer).critic_ids == [8, 9]
    bound = tccf("sampler.think_end='='").with_tokenizer(tokenizer)
    (end,) = tokenizer.encode("=")
    assert bound.prepare(prompt).stop_ids == (end,)
    assert tccf().with_tokenizer(tokenizer).prepare(prompt) == prompt
    with pytest.raises(ConfigError, match=r"sampler\.think_end=so = is no single token"):
        tccf("sampler.think_end='so ='").with_tokenizer(tokenizer)


def test_room_for_both_phases() -> None:
    """A prompt of 3, a thought of 8 in blocks of 4, 2 of critic and 6 of answer; 24 at most."""
    layout = tccf().layout(Prompt("one", (5, 6, 7), 8), TRAINED)
    assert (layout.length, layout.capacity) == (12, 20)
    assert tccf().layout(Prompt("one", (5,) * 12, 8), TRAINED).capacity == 24


def test_errors_of_the_second_phase_name_its_region() -> None:
    with pytest.raises(ConfigError, match=r"^sampler\.final_region\.block_length=3: the model"):
        tccf("sampler.final_region.block_length=3").layout(Prompt("one", (5,), 8), TRAINED)
    uneven = tccf(
        "sampler@sampler.base=low_confidence",
        "sampler.base.region.block_length=8",
        "sampler.base.steps=8",
    )
    with pytest.raises(
        ConfigError, match=r"^sampler/region@sampler\.final_region=aligned: the numb"
    ):
        uneven.validate(8)
    first = tccf("sampler.base.region.block_length=3")
    with pytest.raises(ConfigError, match=r"^sampler\.base\.region\.block_length=3: the model"):
        first.layout(Prompt("one", (5,), 8), TRAINED)
    with pytest.raises(ConfigError, match=r"sampler\.final_gen_length=0 must be >= 1"):
        tccf("sampler.final_gen_length=0")
    with pytest.raises(ConfigError, match="critic_ids: token id 99 is outside the vocabulary"):
        tccf("sampler.critic_ids=[8,99]").check_model(TRAINED)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(None, None, None), (5, None, [5, 7]), (None, 6, [7, 6]), (5, 6, [5, 6])],
)
def test_each_phase_finds_its_own_block_ends(
    first: int | None, second: int | None, expected: list[int] | None
) -> None:
    """Two sequences with blocks up to 7, one in each phase."""

    def region(end: int | None) -> Any:
        found = None if end is None else np.array([end, end])
        return SimpleNamespace(refine=lambda view: found)

    canvas = canvas_of([MASK] * 4, [MASK] * 4)
    for row in range(2):
        canvas.enter_block(row, 3, 7)
        canvas.prompts[row] = replace(canvas.prompts[row], phase=row)
    view: Any = SimpleNamespace(canvas=canvas)
    ends = TwoPhases(region(first), region(second)).refine(view)
    assert (None if ends is None else ends.tolist()) == expected


def test_texts_of_both_regions_are_read() -> None:
    """Delimiters given as text, of the second phase's blocks as well."""
    adaptive = ("sampler/region@sampler.{}=adaptive", "~sampler.{}.block_length")
    options = [option.format("final_region") for option in adaptive]
    tokenizer = load_tokenizer(TOKENIZER)
    bound = tccf(*options).with_tokenizer(tokenizer)
    assert isinstance(bound, TCCF) and isinstance(bound.final_region, AdaptiveBlocks)
    assert bound.final_region.delimiter_ids
    missing = tccf(*options, "sampler.final_region.delimiters=[nowhere]")
    with pytest.raises(ConfigError, match=r"^sampler\.final_region\.delimiters=\['nowhere'\]: the"):
        missing.with_tokenizer(tokenizer)


def test_steps_that_lay_out_one_answer() -> None:
    equal = tccf(
        "sampler@sampler.base=low_confidence",
        "sampler.base.region.block_length=8",
        "sampler.base.steps=8",
        "sampler/region@sampler.final_region=fixed",
        "sampler.final_region.block_length=8",
        "sampler.final_gen_length=8",
    )
    equal.validate(8)
    with pytest.raises(ConfigError) as error:
        equal.validate(16)
    assert str(error.value) == "sampler.base.steps=8 lays out one answer; the two phases need null"

"""What a prompt is refused for, in whole lines: the sample, what is wrong with it, what is
allowed."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from constraining import Forbidding
from scripted import built
from tiny_decoding import EOS, MASK, NOISE, SPEC, sampler

from dllm.cache.none import NoCache
from dllm.engine.setting import DoesNotFit, Served, Setting
from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Layout, Prompt
from dllm.step.eos import EosPolicy
from dllm.step.sampler import Sampler


BLOCKS = "sampler.region.block_length=4"
RULE = sampler("sampler=threshold", BLOCKS)
GEMMA = built("sampler=diffusion_gemma")
ORACLE = sampler("sampler=oracle", BLOCKS)
GAPS = (5, MASK, 7, MASK)


def of(spec: ModelSpec) -> Any:
    """A model that is asked for nothing but its facts."""
    return SimpleNamespace(spec=spec)


def setting(spec: ModelSpec = SPEC, rule: Sampler = RULE, **options: Any) -> Setting:
    return Setting(of(spec), rule, NoCache(), **options)


def prompt(*tokens: int, length: int = 4, **options: Any) -> Prompt:
    return Prompt("one", tokens, length, **options)


def test_a_prompt_is_admitted_with_its_layout() -> None:
    assert setting().admit(prompt(2, 23)) == (prompt(2, 23), Layout(6, 6, 6, 0))


IMAGES = replace(NOISE, image_ids=(7,))
BESIDE = {"verifier": Served(of(replace(SPEC, max_positions=8)), NoCache())}


@pytest.mark.parametrize(
    ("circumstances", "asked", "line"),
    [
        (setting(), prompt(5, 24), "token id 24 of the prompt is outside the vocabulary [0, 24)"),
        (setting(), prompt(-1), "token id -1 of the prompt is outside the vocabulary [0, 24)"),
        (
            setting(IMAGES, GEMMA),
            prompt(5, 7),
            "token 7 of the prompt stands for an image; the diffusion_gemma model is read without "
            "its vision tower, text only",
        ),
        (
            setting(),
            prompt(5, 6, MASK),
            "position 2 of the prompt holds the mask token 0; masks are decoded behind a prompt, "
            "inside it only where dllm.generate is called with infill=True",
        ),
        (
            setting(positions=6),
            prompt(2, 3, 4),
            "prompt of 3 tokens + gen_length=4 exceeds the 6 positions of the session",
        ),
        (
            setting(rule=ORACLE),
            prompt(2),
            "Oracle needs a reference answer of 1 to gen_length=4 tokens, got none",
        ),
        (
            setting(rule=ORACLE),
            prompt(2, reference=(5,) * 5),
            "Oracle needs a reference answer of 1 to gen_length=4 tokens, got 5",
        ),
        (
            setting(NOISE, GEMMA),
            prompt(2, region=GAPS),
            "the given answer: gaps need a mask token; the diffusion_gemma model has none",
        ),
        (
            setting(),
            prompt(2, region=(*GAPS, 5)),
            "the given answer has 5 positions, sampler=Threshold lays out 4 to 4: gaps are filled "
            "on a canvas of one length",
        ),
        (
            setting(rule=sampler("sampler/region=growing", "sampler.region.initial_length=4")),
            prompt(2, length=8, region=GAPS),
            "the given answer has 4 positions, sampler=LocalLeap lays out 4 to 8: gaps are "
            "filled on a canvas of one length",
        ),
        (setting(), prompt(2, region=(5, 6, 7, 8)), "the given answer has no gap"),
        (
            setting(),
            prompt(2, region=(MASK, 6, 7, 24)),
            "the given answer holds a token id outside the vocabulary",
        ),
        (
            setting(),
            prompt(2, region=(MASK, 6, 7, -1)),
            "the given answer holds a token id outside the vocabulary",
        ),
        (
            setting(eos=EosPolicy.STOP_AFTER_BLOCK),
            prompt(2, region=GAPS),
            "the given answer ends before its gaps are filled under eos=stop_after_block: use "
            "eos=none",
        ),
    ],
)
def test_a_prompt_is_refused(circumstances: Setting, asked: Prompt, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        circumstances.admit(asked)
    assert str(error.value) == f"sample one: {line}"


@pytest.mark.parametrize(
    ("circumstances", "most", "whose"),
    [
        (setting(), 60, "the model's 64 positions"),
        (setting(others=BESIDE), 4, "the 8 positions of model 'verifier'"),
    ],
)
def test_a_prompt_that_is_too_long(circumstances: Setting, most: int, whose: str) -> None:
    """By one position; told from other errors, since a shorter answer may fit."""
    circumstances.admit(prompt(*[5] * most))
    with pytest.raises(DoesNotFit) as error:
        circumstances.admit(prompt(*[5] * (most + 1)))
    assert str(error.value) == (
        f"sample one: prompt of {most + 1} tokens + gen_length=4 exceeds {whose}"
    )


def test_what_just_fits_is_admitted() -> None:
    setting(positions=6).admit(prompt(2, 3))
    setting().admit(prompt(2, region=(MASK, 0, 23, EOS)))
    setting(rule=ORACLE).admit(prompt(2, reference=(5,)))
    setting(rule=ORACLE).admit(prompt(2, reference=(5,) * 4))


def test_a_constraint_needs_masks() -> None:
    setting(constraint=Forbidding({5})).check_parts()
    setting(NOISE, GEMMA).check_parts()
    with pytest.raises(ConfigError) as error:
        setting(NOISE, GEMMA, constraint=Forbidding({5})).check_parts()
    assert str(error.value) == (
        "a constraint needs a mask token, which the diffusion_gemma model lacks; use "
        "constraint=none"
    )


def test_masks_are_left_where_there_are_some() -> None:
    left = EosPolicy.STOP_AFTER_BLOCK
    setting(eos=left).check_parts()
    setting(NOISE, GEMMA, eos=EosPolicy.FILL_AFTER_BLOCK).check_parts()
    with pytest.raises(ConfigError) as error:
        setting(NOISE, GEMMA, eos=left).check_parts()
    assert str(error.value) == (
        "eos=stop_after_block leaves masks behind an answer, which the diffusion_gemma model has "
        "none of; use eos=fill_after_block"
    )

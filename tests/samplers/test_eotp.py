"""Worked examples of EoTP: an answer cut at the end it predicts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted import Script, built, distribution
from small_filters import network
from tiny_decoding import EOS, MASK, canvas_of, decode, ragged_prompts, random_model
from written import PROMPT, offsets

from dllm.forward.predictor import Predictor
from dllm.models.filter import (
    save_filter,
)
from dllm.step.canvas import Prompt
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


@pytest.fixture
def diag(tmp_path: Path) -> str:
    save_filter(network(), tmp_path / "diag.safetensors")
    return str(tmp_path / "diag.safetensors")


def cut_view(rule: Sampler, sure: list[float]) -> tuple[View, SamplerState]:
    """Two blocks of four, all masked, the first one current; a b EoT c | EoT EoT d EoT."""
    tokens = [10, 11, EOS, 12, EOS, EOS, 13, EOS]
    canvas = canvas_of([MASK] * 8)
    canvas.enter_block(0, 3, 7)
    canvas.prompts[0] = replace(canvas.prompts[0], gen_length=8)
    state = SamplerState(rule.fields(), canvas.capacity, "cpu")
    state.append()
    eligible = rule.region.eligible(canvas)
    positions = rule.plan(canvas, eligible, state).positions
    logits = torch.stack([distribution(tokens[p - 3], sure[p - 3]) for p in positions[0]])[None]
    candidates = torch.from_numpy(np.take_along_axis(eligible, positions, axis=1))
    return View(canvas, torch.from_numpy(positions), logits, candidates), state


SURE = [0.90, 0.50, 0.85, 0.30, 0.60, 0.95, 0.20, 0.70]


UNSURE = [0.90, 0.50, 0.70, 0.30, 0.60, 0.95, 0.20, 0.70]


def eotp(base: str, zone: str, *options: str) -> Sampler:
    region = "sampler.base.region.block_length=4"
    named = [f"sampler@sampler.base={base}", f"sampler.zone={zone}", region]
    return built("sampler=eotp", *named, *options)


@pytest.mark.parametrize(
    ("filtered", "zone", "sure", "committed", "length"),
    [
        (False, "sequence", SURE, {0}, 6),
        (True, "sequence", SURE, {0, 2}, 3),
        (True, "sequence", UNSURE, {0}, 6),
        (True, "block", UNSURE, {0}, 3),
    ],
)
def test_predicted_end(
    diag: str, filtered: bool, zone: str, sure: list[float], committed: set[int], length: int
) -> None:
    rule = eotp("low_confidence", zone)
    if filtered:
        rule = eotp("learn2pd", zone, f"sampler.base.filter={diag}")
    view, state = cut_view(rule, sure)
    decision = rule.select(view, state)
    assert offsets(decision.commit, view) == [committed]
    assert decision.length is not None
    assert decision.length.tolist() == [3 + length]


def test_a_cut_answer_ends_there_and_counts_only_what_is_left() -> None:
    tokens = [10, 11, EOS, 12, EOS, EOS, 13, EOS]
    scene = list(zip(tokens, SURE, strict=True))
    rule = eotp("low_confidence", "sequence")
    prompt = Prompt("one", PROMPT, 8)
    outcome = decode(rule, [prompt], Script([scene], 3), record=True)["one"]
    # Position 5 is the most confident end until it is committed itself, then position 4.
    assert outcome.tokens == (10, 11, EOS, 12, EOS)
    assert outcome.committed == 5
    assert outcome.trace is not None
    assert next(len(canvas) for canvas in outcome.trace.replay()) == 6


@pytest.mark.parametrize("block", ["null", "8"])
def test_a_cut_leaves_the_quota_of_its_block_as_it_was(block: str) -> None:
    rule = built("sampler=eotp", f"sampler.base.region.block_length={block}")
    prompts = [replace(prompt, gen_length=16) for prompt in ragged_prompts(3)]
    shortened = 0
    for seed in range(6):
        predictor = Predictor(random_model(seed=seed))
        for outcome in decode(rule, prompts, predictor, record=True).values():
            assert outcome.failure is None and MASK not in outcome.tokens
            assert outcome.trace is not None
            assert all(len(step.positions) <= 1 for step in outcome.trace.steps)
            shortened += len(outcome.tokens) < 16
    assert shortened > 3

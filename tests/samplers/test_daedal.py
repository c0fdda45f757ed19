"""DAEDAL's growing canvas: worked examples and bounds."""

from dataclasses import replace

import pytest
import torch
from scripted import built
from tiny_decoding import EOS, MASK, SPEC, WrittenPredictor
from written import PROMPT, rule, spread, step_of, toy

from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from samplers.parts.flexible_length import FlexibleLength


LONG = replace(SPEC, max_positions=512)


def lengths(outcome: Outcome) -> list[int]:
    """Of the canvas each forward saw."""
    assert outcome.trace is not None
    start = outcome.trace.gen_length
    return [start, *(len(canvas) for canvas in outcome.trace.replay())][:-1]


@pytest.mark.parametrize(
    ("true_length", "final", "forwards"), [(10, 80, 3), (60, 96, 6), (100, 136, 12)]
)
def test_daedal_finds_the_length(true_length: int, final: int, forwards: int):
    outcome = toy(built("sampler=daedal"), true_length)
    assert (len(outcome.tokens), outcome.cost.nfe) == (final, forwards)
    assert outcome.tokens == (9,) * true_length + (EOS,) * (final - true_length)
    assert not outcome.truncated
    if true_length == 60:
        assert lengths(outcome) == [64, 72, 80, 96, 96, 96]


def test_daedal_expands_an_unsure_mask():
    """A single unsure position becomes eight, once: the rest is sure of itself."""
    most = 60
    answer = [9] * most
    sure = [0.95] * most
    sure[2] = 0.05
    predictor = WrittenPredictor(answer, sure, len(PROMPT), LONG)
    rule = built("sampler=daedal", "sampler.region.initial_length=16", "sampler.eos_threshold=0.0")
    decoder = Decoder(predictor, rule, NoCache(), record=True)  # type: ignore[arg-type]
    outcome = next(decoder.decode([Prompt("one", PROMPT, most)]))
    assert outcome.trace is not None
    inserted = [pair for step in outcome.trace.steps for pair in step.inserted]
    assert inserted[0] == (2, 7)
    assert MASK not in outcome.tokens
    assert list(outcome.trace.replay())[-1].tolist() == list(outcome.tokens)


@pytest.mark.parametrize("name", ["daedal", "rho_eos"])
def test_an_end_of_turn_is_not_the_end_that_fills_a_canvas(name: str):
    """The scan for the end's confidence counts predicted EOS alone; EOT 2 is another end token."""
    step = step_of(rule(name, **{"region.initial_length": 8}), [0.9] * 8)
    rows = [spread(0.9, token)[None] for token in (9, 9, 9, 2, EOS, EOS, EOS, EOS)]
    view = replace(step.view, logits=torch.stack(rows, dim=1))
    view.canvas.eos_ids = (EOS, 2)
    assert isinstance(step.rule, FlexibleLength)
    confidence = step.rule.end_confidence(view)
    assert float(confidence) == pytest.approx(4 * 0.9 / 32)


def test_growth_past_the_models_positions_keeps_the_answer_and_says_so():
    outcome = toy(built("sampler=daedal"), 100, positions=90)
    assert outcome.truncated
    assert len(outcome.tokens) == 90 - len(PROMPT)
    assert MASK not in outcome.tokens


def test_growing_regions_need_full_attention():
    spec = replace(SPEC, attention="block_causal", block_size=4)
    with pytest.raises(ConfigError, match="a growing canvas needs full attention"):
        built("sampler=daedal").layout(Prompt("one", PROMPT, 8), spec)

"""Worked examples of low-confidence remasking: static quota, guidance, end tokens."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scripted import built
from tiny_decoding import MASK, SPEC, decode, decode_written, random_model, sampler
from written import A, Step, proposal, rule, step_of, steps

from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Prompt
from samplers.parts.quota import step_quota


@pytest.mark.parametrize(
    ("total", "block", "expected"),
    [
        (8, 8, [[0], [5], [1], [7], [2], [3], [4], [6]]),
        (4, 8, [[0, 5], [1, 7], [2, 3], [4, 6]]),
        (3, 8, [[0, 1, 5], [2, 3, 7], [4, 6]]),
        (4, 4, [[0, 1], [2, 3], [5, 7], [4, 6]]),
        (8, 4, [[0], [1], [2], [3], [5], [7], [4], [6]]),
    ],
)
def test_static_quota(total: int, block: int, expected: list[list[int]]) -> None:
    assert steps("low_confidence", steps=total, region__block_length=block) == expected


def test_static_quota_that_does_not_divide() -> None:
    with pytest.raises(ConfigError, match="steps=3 is not a multiple of the 2 blocks"):
        rule("low_confidence", steps=3).validate(8)


@pytest.mark.parametrize(
    ("masks", "total", "expected"),
    [
        (32, 5, [7, 7, 6, 6, 6]),
        (10, 4, [3, 3, 2, 2]),
        (3, 8, [1, 1, 1, 0, 0, 0, 0, 0]),
        (8, 3, [3, 3, 2]),
    ],
)
def test_quota_shares(masks: int, total: int, expected: list[int]) -> None:
    static = rule("low_confidence", steps=total, **{"region.block_length": "null"})
    canvas = step_of(static, [0.5] * masks).canvas
    shares = []
    for number in range(total):
        canvas.step_in_block = np.array([number])
        shares.append(int(step_quota(canvas, static.region, total)[0]))
    assert shares == expected


@pytest.mark.parametrize(
    ("remasking", "first"), [("low_confidence", 0), ("topk_margin", 1), ("entropy", 2)]
)
def test_what_ranks_the_positions(remasking: str, first: int) -> None:
    # (p1, p2) of each position, the rest shared evenly.
    pairs = ((0.5, 0.45), (0.45, 0.025), (0.49, 0.49))
    logits = {}
    for at, (p1, p2) in enumerate(pairs):
        p = [(1 - p1 - p2) / 22] * 24
        p[10], p[11] = p1, p2
        logits[at] = [math.log(x) for x in p]
    ranked = rule("low_confidence", remasking=remasking, **{"region.block_length": "null"})
    step = step_of(ranked, [0.5] * 3, logits=logits, masks=3)
    assert step.decide().commit[0].nonzero().flatten().tolist() == [first]


def test_random_remasking_draws_from_the_sequence() -> None:
    written = rule("random", steps=8, **{"region.block_length": "null"})
    answer = [proposal(i) for i in range(8)]
    runs = [decode_written(written, answer, A, record=True, seed=seed).trace for seed in (1, 1, 2)]
    orders = [[step.positions for step in run.steps] for run in runs if run]
    assert orders[0] == orders[1] != orders[2]


def test_guidance_on_a_second_canvas() -> None:
    guided = rule("low_confidence", cfg_scale=1.0)
    step = step_of(guided, [0.5] * 4)
    request = guided.plan(step.canvas, step.canvas.masked(), step.state)
    assert request.branches is not None
    assert request.branches[0, 1, :3].tolist() == [step.canvas.mask_id] * 3
    free = torch.randn(1, 1, 4, 24, dtype=torch.float64)
    both = torch.cat((step.view.logits[:, None], free), dim=1)
    view = replace(step.view, branch_logits=both)
    mixed = guided.transform(view, step.state).logits
    assert torch.allclose(mixed, free[:, 0] + 2 * (view.logits - free[:, 0]))


def test_end_tokens_last() -> None:
    # Trap L1: EOS and EOT get confidence 0 and the others are renormalised without them.
    end = [-9.0] * 24
    end[1], end[12] = 3.0, 2.0
    whole = {"region.block_length": "null"}
    plain = rule("low_confidence", confidence_eos_eot_inf="true", eot_ids="[4]", **whole)
    step = step_of(plain, [0.5, 0.4], logits={0: end}, masks=2)
    score = step.decide().score[0]
    assert float(score[0]) == 0.0
    assert float(score[1]) > 0.4
    forbidden = rule("low_confidence", logits_eos_inf="true", **whole)
    step = step_of(forbidden, [0.5, 0.4], logits={0: end}, masks=2)
    assert step.decide().tokens[0, 0] == 12


def test_end_tokens_of_a_chat_model() -> None:
    # EOS 1 fills the canvas, EOT 2 ends the turn, as LLaDA's 126081 and 126348.
    ends = [-9.0] * 24
    ends[1], ends[2], ends[12] = 4.0, 3.0, 2.0

    def step(*options: str) -> Step:
        found = sampler("sampler=low_confidence", "sampler.region.block_length=null", *options)
        found = step_of(found, [0.5, 0.4], logits={0: ends}, masks=2)
        found.canvas.eos_ids = (1, 2)
        return found

    def scores(found: Step) -> list[float]:
        tokens = [torch.tensor([[token, 11]]) for token in (1, 2, 12)]
        return [float(found.rule.score(found.view, token)[0, 0]) for token in tokens]

    # Forbidding EOS leaves EOT alone.
    assert step("sampler.logits_eos_inf=true").decide().tokens[0, 0] == 2
    hidden = "sampler.confidence_eos_eot_inf=true"
    eos, eot, other = scores(step(hidden))
    assert eos == eot == 0 and other > 0.99
    quirk = ("sampler/proposer=gumbel", "sampler.official_quirk=true")
    eos, eot, _ = scores(step(hidden, *quirk))
    assert eos > 0.8 and eot == 0
    eos, eot, _ = scores(step(hidden, "sampler.eot_ids=[]"))
    assert eos == 0 and eot > 0.7


@pytest.mark.parametrize(
    ("region", "options"),
    [
        ("aligned", {"region.block_length": 5}),
        ("uneven", {"region.block_length": 5}),
        ("adaptive", {"region.default_block_length": 5, "region.delimiter_ids": "[4,5]"}),
        ("growing", {"region.block_length": 5, "region.initial_length": 12}),
    ],
)
def test_one_token_per_step_needs_no_blocks_in_advance(region: str, options: dict) -> None:
    given = [f"sampler.{name}={value}" for name, value in options.items()]
    found = built("sampler=low_confidence", f"sampler/region={region}", *given)
    prompts = [Prompt(f"s{n}", tuple(range(3, 4 + n)), 12) for n in range(3)]
    blocks = replace(SPEC, attention="block_causal", block_size=5)
    model = random_model(blocks if region == "aligned" else SPEC)
    # An aligned last block is decoded to its end, of which the answer keeps a part.
    most = 12 + 4 * (region == "aligned")
    for outcome in decode(found, prompts, Predictor(model), record=True).values():
        assert outcome.trace is not None and MASK not in outcome.tokens
        assert all(len(step.positions) == 1 for step in outcome.trace.steps)
        assert 12 <= outcome.cost.nfe <= most

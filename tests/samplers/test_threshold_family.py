"""Worked examples of threshold, factor, LocalLeap and the static quota."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scripted import built
from tiny_decoding import MASK, SPEC, decode, decode_written, random_model, sampler
from written import A, commits, in_float32, offsets, one, picked, proposal, step_of

from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Prompt
from dllm.step.sampler import Sampler
from samplers.parts.quota import step_quota


def rule(name: str, **options: object) -> Sampler:
    return sampler(f"sampler={name}", *(f"sampler.{k}={v}" for k, v in options.items()))


def steps(name: str, sure: tuple[float, ...] = A, **options: object) -> list[list[int]]:
    """Committed positions per forward under constant predictions."""
    written = rule(name, **{k.replace("__", "."): v for k, v in options.items()})
    answer = [proposal(i) for i in range(len(sure))]
    trace = decode_written(written, answer, sure, record=True).trace
    assert trace is not None
    return [sorted(step.positions) for step in trace.steps]


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
    ("threshold", "expected"),
    [(0.9, {0, 5}), (0.75, {0, 1, 2, 5, 7}), (0.99, {0}), (1.0, {0}), (0.0, set(range(8)))],
)
def test_threshold(threshold: float, expected: set[int]) -> None:
    assert one(rule("threshold", threshold=threshold), A) == expected


def test_threshold_at_equality_and_in_each_dtype() -> None:
    # exp(0) / (exp(0) + 23 exp(l)) is 0.5 exactly in float32 and float64.
    row = {0: [0.0] + [-math.inf] * 22 + [0.0]}
    for dtype in ("float64", "float32", "model"):
        strict = rule("threshold", threshold=0.5, conf_dtype=dtype)
        step = step_of(strict, [0.9, 0.5], logits={1: row[0]})
        assert offsets(step.decide().commit, step.view) == [{0, 1}]
        step.view = in_float32(step.view)
        assert offsets(step.decide().commit, step.view) == [{0, 1}]


def test_threshold_over_two_blocks() -> None:
    assert steps("threshold", threshold=0.9) == [[0], [1], [2], [3], [5], [7], [4], [6]]
    assert steps("threshold", threshold=0.75) == [[0, 1, 2], [3], [5, 7], [4], [6]]


def test_ties_go_to_the_first_position() -> None:
    assert picked(rule("threshold", threshold=0.99), 0.5, 0.7, 0.7, 0.7) == {1}
    quota = rule("low_confidence", steps=2, **{"region.block_length": "null"})
    assert picked(quota, 0.2, 0.9, 0.9, 0.9) == {1, 2}


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1, {0, 1, 5, 7}), (0.5, {0, 1, 5}), (1.5, {0, 1, 2, 5, 7}), (2, {0, 1, 2, 3, 5, 7})],
)
def test_factor(factor: float, expected: set[int]) -> None:
    assert picked(rule("factor", factor=factor), *A) == expected


@pytest.mark.parametrize(
    ("row", "official", "clean"),
    [((0.99, 0.99, 0.60), {0, 1, 2}, {0, 1}), ((0.9, 0.3), {0, 1}, {0}), ((0.1,), {0}, {0})],
)
def test_factor_last_rank(row: tuple[float, ...], official: set[int], clean: set[int]) -> None:
    assert one(rule("factor", factor=1, last_rank_quirk="true"), row) == official
    assert one(rule("factor", factor=1, last_rank_quirk="false"), row) == clean


def test_factor_at_equality() -> None:
    # The bound of rank 2 is 1 - 0.75 / 3 = 0.75.
    clean = rule("factor", factor=0.75, last_rank_quirk="false")
    assert picked(clean, 0.9, 0.75, 0.2, 0.1) == {0, 1}
    assert picked(clean, 0.9, math.nextafter(0.75, 0), 0.2, 0.1) == {0}


def test_factor_extremes() -> None:
    assert one(rule("factor", factor=1e9), A) == set(range(8))
    assert one(rule("factor", factor=1e-9, last_rank_quirk="false"), A) == {0}


@pytest.mark.parametrize(
    ("row", "radius", "expected"),
    [
        (A, 4, {0, 1, 2, 5, 7}),
        (A, 1, {0, 1, 5}),
        (A, 0, {0, 5}),
        ((0.89, 0.80, 0.76, 0.70), 4, {0}),
        ((0.95, *[0.8] * 9), 4, {0, 1, 2, 3, 4}),
        ((0.95, 0.74, None, 0.50, 0.77, 0.76, 0.92, 0.30), 2, {0, 4, 5, 6}),
    ],
)
def test_localleap(row: tuple[float | None, ...], radius: int, expected: set[int]) -> None:
    assert one(rule("localleap", radius=radius), row) == expected


def test_localleap_stays_in_its_block() -> None:
    committed = steps("localleap", (0.1, 0.2, 0.3, 0.95, 0.8, 0.7, 0.6, 0.5))
    assert committed[0] == [3]
    assert committed.index([4]) > 3


def test_localleap_marks_its_anchors() -> None:
    step = step_of(rule("localleap"), A)
    assert offsets(step.decide().marks["anchors"], step.view) == [{0, 5}]


def test_rows_of_a_batch_are_decided_alone() -> None:
    for name in ("threshold", "factor", "localleap"):
        apart = [one(rule(name), row) for row in (A, A[::-1], (0.95, 0.2))]
        assert commits(rule(name), A, A[::-1], (0.95, 0.2)) == apart


def test_random_remasking_draws_from_the_sequence() -> None:
    written = rule("random", steps=8, **{"region.block_length": "null"})
    answer = [proposal(i) for i in range(8)]
    runs = [decode_written(written, answer, A, record=True, seed=seed).trace for seed in (1, 1, 2)]
    orders = [[step.positions for step in run.steps] for run in runs if run]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"sampler.threshold=1.5 is outside \[0, 1\]"),
        ({"threshold": -0.1}, r"sampler.threshold=-0.1 is outside \[0, 1\]"),
        ({"threshold": "abc"}, "sampler.threshold='abc' is not of type"),
        ({"factor": 1.0}, "factor"),
    ],
)
def test_refused_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule("threshold", **options)


def test_relaxed_above_the_anchor_threshold_warns() -> None:
    with pytest.warns(UserWarning, match="relaxed_threshold=0.95 exceeds"):
        rule("localleap", relaxed_threshold=0.95)


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

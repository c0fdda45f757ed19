"""Worked examples of R2-dLLM: blocks of 8, threshold 0.9, windows of 3."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scripted import Script, built
from tiny_decoding import SPEC, WrittenPredictor, decode
from written import PROMPT, offsets, proposal, spread, step_of

from dllm.errors import ConfigError
from dllm.step.canvas import Prompt
from dllm.step.decision import HostDecision, RowChanges
from dllm.step.sampler import Sampler
from samplers.parts.blocks import BlockRows
from samplers.r2dllm import R2DLLM


A = (0.95, 0.82, 0.79, 0.70, 0.91, 0.30, 0.85, 0.72)
B = (0.95, 0.82, 0.91, 0.70, 0.91, 0.30, 0.85, 0.72)
RUNS = (0.89, 0.84, 0.86, 0.50, 0.30, 0.30, 0.81, 0.78)
ALONE = ("token_cluster=null", "temporal_steps=null")


def r2dllm(*options: str, base: str = "threshold") -> R2DLLM:
    region = "sampler.base.region" if base == "threshold" else "sampler.base.base.region"
    chosen = ["sampler=r2dllm", f"sampler@sampler.base={base}", f"{region}.block_length=8"]
    rule = built(*chosen, *(f"sampler.{option}" for option in options))
    assert isinstance(rule, R2DLLM)
    return rule


def committed(rule: Sampler, sure: tuple[float, ...], tokens: str = "abcdefgh") -> set[int]:
    """Positions that the first forward of a block commits."""
    ids = {i: 10 + "abcdefghxy".index(t) for i, t in enumerate(tokens)}
    logits = {i: spread(p, ids[i]).tolist() for i, p in enumerate(sure)}
    step = step_of(rule, list(sure), logits=logits)
    return offsets(step.decide().commit, step.view)[0]


def test_base_rule_alone() -> None:
    assert committed(r2dllm("cluster_size=null", *ALONE), A) == {0, 4}


def test_confidence_clusters() -> None:
    assert committed(r2dllm(*ALONE), A) == {0, 1, 2, 4}
    assert committed(r2dllm(*ALONE), B) == {0, 2, 4}
    assert committed(r2dllm("cluster_unmasked=null", *ALONE), B) == {0, 1, 2, 4}


def swept(rule: R2DLLM, sure: Sequence[float], dtype: torch.dtype = torch.float64) -> set[int]:
    """Base rule and sweep for exactly these scores: probabilities rebuilt from logits are not."""
    step = step_of(rule, sure)
    decision = rule.base.select(step.view, step.state)
    exact = replace(decision, score=torch.tensor([sure], dtype=torch.float64).to(dtype))
    sweep = rule.confidence_clusters(BlockRows(step.view), step.view, exact, decision.commit)
    return offsets(decision.commit | sweep, step.view)[0]


def test_a_mean_at_the_threshold_counts() -> None:
    assert swept(r2dllm(*ALONE), [0.95, 0.85, 0.75, *[0.3] * 5]) == {0, 1, 2}


def test_opening_forward_of_dream() -> None:
    # In the logits' dtype, as there: in float64 the mean of .79, .70 and .91 is just below .8.
    assert swept(r2dllm(*ALONE, base="opening"), A, torch.float32) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float32, {0, 1, 2}), (torch.bfloat16, {0, 1, 2, 3})]
)
def test_precision_of_the_mean(dtype: torch.dtype, expected: set[int]) -> None:
    sure = [0.50, 0.805, 0.80, 0.792, 0.30, 0.30, 0.30, 0.30]
    assert swept(r2dllm(*ALONE, base="opening"), sure, dtype) == expected


def test_token_clusters() -> None:
    off = ("temporal_steps=null",)
    assert committed(r2dllm(*off), RUNS, "axxxefyy") == {0, 1, 2, 6}
    assert committed(r2dllm("token_cluster=mid", *off), RUNS, "axxxefyy") == {0, 1, 2, 7}
    drawn = committed(r2dllm("token_cluster=random", *off), RUNS, "axxxefyy")
    assert drawn in ({0, 1, 2, 6}, {0, 1, 2, 7})
    taken = (0.84, 0.86, 0.50, 0.30, 0.30, 0.30, 0.30, 0.30)
    assert committed(r2dllm(*off), taken, "xxxdefgh") == {1}


def at_one_half(*options: str) -> set[int]:
    """What is committed of eight positions that predict one token with probability 1/2 exactly."""
    two = [0.0 if token in (10, 11) else -1e9 for token in range(SPEC.vocab_size)]
    step = step_of(
        r2dllm("cluster_size=null", *options), [0.5] * 8, logits=dict.fromkeys(range(8), two)
    )
    return offsets(step.decide().commit, step.view)[0]


def test_a_run_at_the_threshold_is_no_cluster() -> None:
    assert at_one_half("temporal_steps=null", "spatial_threshold=0.5") == {0}
    assert at_one_half("temporal_steps=null", "spatial_threshold=0.4999") == {0, 1}


@pytest.mark.parametrize("value", ["last", "mean", "max"])
def test_a_streak_at_the_threshold_counts(value: str) -> None:
    streak = ("token_cluster=null", "temporal_steps=1", f"temporal_value={value}")
    assert at_one_half(*streak, "temporal_threshold=0.5") == set(range(8))
    assert at_one_half(*streak, "temporal_threshold=0.5001") == {0}


@pytest.mark.parametrize(
    ("value", "second", "third"),
    [("last", {2}, {4, 1, 3}), ("mean", {2}, {4, 3}), ("max", {2}, {4, 1, 3})],
)
def test_temporal(value: str, second: set[int], third: set[int]) -> None:
    rule = r2dllm("cluster_size=null", "token_cluster=null", f"temporal_value={value}")
    rows = (
        (0.95, 0.64, 0.30, 0.82, 0.20),
        (0.95, 0.73, 0.92, 0.85, 0.20),
        (0.95, 0.81, 0.92, 0.88, 0.95),
    )
    steps = _temporal_steps(rule, rows, [proposal(i) for i in range(8)])
    assert steps[:3] == [{0}, second, third]


def test_another_argmax_starts_a_new_streak() -> None:
    rule = r2dllm("cluster_size=null", "token_cluster=null")
    rows = (
        (0.95, 0.64, 0.30, 0.82, 0.20),
        (0.95, 0.73, 0.92, 0.85, 0.20),
        (0.95, 0.81, 0.92, 0.88, 0.95),
    )
    steps = _temporal_steps(rule, rows, [proposal(i) for i in range(8)], changed={1: (1, 22)})
    assert steps[2] == {4, 3}


def _temporal_steps(
    rule: Sampler,
    rows: tuple[tuple[float, ...], ...],
    answer: list[int],
    changed: dict[int, tuple[int, int]] | None = None,
) -> list[set[int]]:
    """`changed`: forward -> (position, other token predicted there)."""
    script = []
    for number, sure in enumerate(rows):
        padded = (*sure, *[0.2] * (8 - len(sure)))
        scene = list(zip(answer, padded, strict=True))
        if changed and number in changed:
            position, token = changed[number]
            scene[position] = (token, scene[position][1])
        script.append(scene)
    prompt = Prompt("one", PROMPT, 8)
    outcome = decode(rule, [prompt], Script(script, len(PROMPT)), record=True)["one"]
    assert outcome.trace is not None
    return [set(step.positions) for step in outcome.trace.steps]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("cluster_size=0", "cluster_size=0 must be >= 1"),
        ("run_length=1", "run_length=1 must be >= 2"),
        ("temporal_steps=0", "temporal_steps=0 must be >= 1"),
        ("spatial_threshold=1.2", "spatial_threshold=1.2 is outside"),
    ],
)
def test_options_out_of_range(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        r2dllm(option)


def test_a_random_member_is_drawn_from_the_own_block_only() -> None:
    options = ("token_cluster=random", "cluster_size=null", "temporal_steps=null")
    choices = ["sampler=r2dllm", "sampler/region@sampler.base.region=uneven"]
    blocks = "sampler.base.region.block_length=8"
    rule = built(*choices, blocks, *(f"sampler.{option}" for option in options))
    prompts = [Prompt(f"s{length}", PROMPT, length) for length in (5, 8, 13)]
    flat = WrittenPredictor([9] * 13, [0.85] * 13, len(PROMPT))
    found = [
        decode(rule, [*order], flat, batch_size=size, record=True)
        for order, size in ((prompts, 1), (prompts, 3), (prompts[::-1], 3))
    ]
    for prompt in prompts:
        alone, *others = (outcomes[prompt.sample_id].trace for outcomes in found)
        assert all(other == alone for other in others)


def test_a_position_that_is_masked_again_starts_a_new_streak() -> None:
    rule = r2dllm("cluster_size=null", "token_cluster=null")
    step = step_of(rule, (0.5,) * 8)
    rule.observe(step.view, step.state)
    rule.observe(step.view, step.state)
    at = len(PROMPT) + np.arange(8)
    assert step.state["streak"][0, at].tolist() == [2] * 8
    none = np.zeros(0, dtype=np.int64)
    changes = RowChanges(at[:1], np.array([9]), np.array([0.5]), at[1:3], none, none, forced=False)
    rule.committed(step.canvas, HostDecision((changes,), {}), step.state)
    assert step.state["streak"][0, at].tolist() == [0, 0, 0, 2, 2, 2, 2, 2]
    rule.observe(step.view, step.state)
    assert step.state["streak"][0, at].tolist() == [1, 1, 1, 3, 3, 3, 3, 3]


def test_a_forward_without_a_prediction_is_no_part_of_a_streak() -> None:
    rule = r2dllm("cluster_size=null", "token_cluster=null")
    step = step_of(rule, (0.5,) * 8)
    rule.observe(step.view, step.state)
    stale = torch.zeros(1, 8, dtype=torch.bool)
    stale[0, 3] = True
    rule.observe(replace(step.view, stale=stale), step.state)
    streak = step.state["streak"][0, len(PROMPT) : len(PROMPT) + 8]
    assert streak.tolist() == [2, 2, 2, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("steps", ["3", "null"])
def test_the_base_learns_what_is_predicted_and_committed(
    steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = r2dllm(f"temporal_steps={steps}")
    step = step_of(rule, (0.5,) * 8)
    told = []
    for hook in ("observe", "committed"):
        monkeypatch.setattr(type(rule.base), hook, lambda _, *given: told.append(given))
    none = np.zeros(0, dtype=np.int64)
    changes = RowChanges(none, none, np.zeros(0), none, none, none, forced=False)
    decision = HostDecision((changes,), {})
    rule.observe(step.view, step.state)
    rule.committed(step.canvas, decision, step.state)
    expected = [(step.view, step.state), (step.canvas, decision, step.state)]
    assert [[id(part) for part in given] for given in told] == [
        [id(part) for part in given] for given in expected
    ]

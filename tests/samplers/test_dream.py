"""Worked examples of Dream's rules and of Fast-dLLM on Dream."""

import math

import pytest
import torch
from tiny_decoding import decode_written
from written import A, proposal, rule, step_of, steps

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.sampler import Sampler


WHOLE = {"region__block_length": "null"}


def whole(name: str, **options: object) -> Sampler:
    return rule(name, **{"region.block_length": "null"}, **options)


def filtered(p: tuple[float, ...], **options: object) -> torch.Tensor:
    """Filtered logits [1, 1, 24] of one distribution."""
    named = {f"logits_transform.{k}": v for k, v in options.items()}
    row = [*[math.log(x) for x in p], *[-math.inf] * (24 - len(p))]
    step = step_of(whole("dream_entropy", **named), (0.5,), logits={0: row})
    return step.rule.transform(step.view, step.state).logits


def values(logits: torch.Tensor) -> tuple[float, float, float]:
    """Probability, margin and negative entropy."""
    top = logits.max(dim=-1)
    return (
        float(scores.confidence(logits, top.indices, "float64")),
        float(scores.margin(logits, "float64")),
        -float(scores.entropy(logits, "float64")),
    )


@pytest.mark.parametrize(
    ("p", "top_p", "expected"),
    [
        ((0.60, 0.31, 0.06, 0.03), None, (0.600, 0.290, -0.944)),
        ((0.60, 0.31, 0.06, 0.03), 0.9, (0.659, 0.319, -0.642)),
        ((0.5, 0.3, 0.15, 0.05), None, (0.500, 0.200, -1.142)),
        ((0.5, 0.3, 0.15, 0.05), 0.9, (0.526, 0.211, -0.993)),
        ((0.5, 0.3, 0.15, 0.05), 0.94, (0.526, 0.211, -0.993)),
    ],
)
def test_scores_of_the_filtered_distribution(p: tuple, top_p: float | None, expected) -> None:
    logits = filtered(p, top_p="null" if top_p is None else top_p)
    assert values(logits) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ((0.85, 0.08, 0.04, 0.03), (0.850, 0.914, 0.876)),
        ((0.91, 0.05, 0.03, 0.01), (0.910, 1.000, 0.948)),
    ],
)
def test_confidence_is_not_the_models_probability(p: tuple, expected: tuple) -> None:
    seen = [values(filtered(p, top_p=top_p))[0] for top_p in ("null", 0.9, 0.95)]
    assert seen == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("top", "lifted"), [(0.40, 0.946), (0.50, 0.999)])
def test_temperature_lifts_confidences(top: float, lifted: float) -> None:
    p = (0.40, 0.30, 0.18, 0.12) if top == 0.4 else (0.5, 0.25, 0.15, 0.10)
    assert values(filtered(p, temperature=0.1))[0] == pytest.approx(lifted, abs=1e-3)


def test_top_k_keeps_ties_at_the_last_value() -> None:
    kept = filtered((0.4, 0.25, 0.25, 0.1), top_k=2)[0, 0] > -math.inf
    assert kept.nonzero().flatten().tolist() == [0, 1, 2]


def quotas(gen_length: int, total: int, eps: float = 0.001) -> list[int]:
    written = whole("dream_maskgit_plus", steps=total, eps=eps)
    left, out = gen_length, []
    for number in range(total):
        share = torch.tensor(written.revealed(total, number))
        out.append(int((left * share).floor()))
        left -= out[-1]
    return out


@pytest.mark.parametrize("length", [32, 128, 256, 512])
def test_one_token_per_step_starts_with_none(length: int) -> None:
    assert quotas(length, length) == [0, *[1] * (length - 2), 2]


@pytest.mark.parametrize(
    ("length", "total", "expected"),
    [
        (256, 128, [1, *[2] * 126, 3]),
        (256, 64, [3, *[4] * 62, 5]),
        (32, 8, [3, 4, 4, 4, 4, 4, 4, 5]),
        (10, 4, [2, 2, 2, 4]),
        (8, 8, [0, 1, 1, 1, 1, 1, 1, 2]),
    ],
)
def test_time_schedule(length: int, total: int, expected: list[int]) -> None:
    assert quotas(length, total) == expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [(32, [1] * 4 + [0] + [1] * 26 + [2]), (64, [1, 0] + [1] * 61 + [2])],
)
def test_parallelbench_ends_the_schedule_at_0(length: int, expected: list[int]) -> None:
    assert quotas(length, length, eps=0.0) == expected


def test_most_confident_first() -> None:
    committed = steps("dream_maskgit_plus", A, steps=4, **WHOLE)
    assert committed == [[0], [1, 5], [2, 7], [3, 4, 6]]


def test_more_steps_than_positions() -> None:
    """Most of them commit nothing; each is taken, also once nothing is masked any more."""
    run = decode_written(whole("dream_maskgit_plus", steps=40), [9] * 8)
    assert (run.failure, run.tokens, run.cost.steps) == (None, (9,) * 8, 40)


def test_origin_and_alg_temp_draw_from_the_sequence() -> None:
    answer = [proposal(i) for i in range(8)]
    for name, options in (("dream_origin", {}), ("dream_entropy", {"alg_temp": 1.0})):
        runs = [
            decode_written(whole(name, **options), answer, A, record=True, seed=seed)
            for seed in (1, 1, 2)
        ]
        orders = [[sorted(step.positions) for step in run.trace.steps] for run in runs]
        assert orders[0] == orders[1] != orders[2]
        assert all(list(run.tokens) == answer and run.cost.nfe == 8 for run in runs)


def test_budget_that_grows() -> None:
    sure = (0.99, 0.98, 0.97, 0.5, 0.4, 0.96, 0.95, 0.3)
    committed = steps("fastdllm_dream", sure, steps=2, **WHOLE)
    assert committed == [[0, 1, 2, 5], [6], [3], [4], [7]]
    assert [len(step) for step in steps("fastdllm_dream", (0.95,) * 8, steps=2, **WHOLE)] == [4, 4]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dream_entropy", {"eps": 1}, r"sampler.eps=1 is outside \[0, 1\)"),
        ("dream_entropy", {"alg": "best"}, "sampler.alg='best'"),
        ("dream_entropy", {"alg_temp": -1.0}, "sampler.alg_temp=-1.0 must be >= 0"),
        ("dream_entropy", {"logits_transform.top_p": 1.5}, "top_p=1.5 is outside"),
        ("dream_entropy", {"logits_transform.top_k": 0}, "top_k=0 must be >= 1"),
        ("dream_entropy", {"logits_transform.temperature": -1}, "temperature=-1 must be >= 0"),
        ("fastdllm_dream", {"steps": 0}, "sampler.steps=0 must be >= 1"),
    ],
)
def test_refused_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        whole(name, **options)


def test_refused_schedules() -> None:
    with pytest.raises(ConfigError, match="needs one block"):
        rule("dream_entropy").validate(8)
    with pytest.raises(ConfigError, match="steps=3 does not divide gen_length=8"):
        whole("fastdllm_dream", steps=3).validate(8)

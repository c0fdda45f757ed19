"""Worked examples of EB-Sampler, and the entropy it adds up."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_decoding import SPEC, WrittenPredictor, decode
from written import offsets, one, rule, step_of, top_for_entropy

from dllm.step import scores
from dllm.step.canvas import Prompt


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, {0}),
        (0.0015, {0, 1}),
        (0.01, {0, 1, 2, 3}),
        (0.1, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3, 4}),
    ],
)
def test_entropy_budget(gamma: float, expected: set[int]) -> None:
    row = [top_for_entropy(h) for h in (0.001, 0.002, 0.004, 0.5, 0.9)]
    assert one(rule("eb_sampler", gamma=gamma), row) == expected


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [(0.01, [[0, 1], [2], [3], [4]]), (0.1, [[0, 1, 2, 3], [4]])],
)
def test_entropy_budget_of_six_way_distributions(gamma: float, expected: list) -> None:
    sure = (0.9999, 0.999, 0.99, 0.5, 0.4)
    written = rule("eb_sampler", gamma=gamma, **{"region.block_length": "null"})
    predictor = WrittenPredictor([2, 3, 4, 5, 2], sure, 3, spec=replace(SPEC, vocab_size=6))
    trace = decode(written, [Prompt("s", (2, 3, 4), 5)], predictor, record=True)["s"].trace
    assert [sorted(step.positions) for step in trace.steps] == expected


def test_the_budget_is_spent_to_its_end() -> None:
    """Two positions without any doubt cost nothing; a third one is the maximum, and free."""
    sure = [0.0, *[-math.inf] * 23]
    step = step_of(rule("eb_sampler", gamma=0.0), (0.5, 0.5, 0.9, 0.8), logits={0: sure, 1: sure})
    assert offsets(step.decide().commit, step.view) == [{0, 1, 2}]


def test_entropy_values() -> None:
    p = torch.tensor([[0.9999, *[0.0001 / 5] * 5], [0.5, *[0.1] * 5], [1.0, *[0.0] * 5]])
    h = scores.entropy(p.double().log()[None], "float64")[0]
    assert h.tolist() == pytest.approx([0.0012, 1.498, 0.0], abs=5e-4)


def test_entropy_budget_of_d2cache_counts_all_but_the_last() -> None:
    row = [top_for_entropy(h) for h in (0.001, 0.002, 0.004, 0.5, 0.9)]
    assert one(rule("eb_d2cache", gamma=0.0015), row) == {0, 1}
    # Ordered by confidence, a late small entropy no longer rides along for free.
    logits = {0: [math.log(0.9), math.log(0.1), *[-math.inf] * 22]}
    step = step_of(rule("eb_d2cache", gamma=0.05), (0.9, 0.85), logits=logits)
    assert offsets(step.decide().commit, step.view) == [{0}]


def test_the_margin_and_the_entropy_come_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes, plain = [], scores._by_row
    monkeypatch.setattr(scores, "_by_row", lambda *a: passes.append(a) or plain(*a))
    row = (0.9, 0.6)
    step = step_of(rule("eb_sampler", gamma=0.0, order="margin"), row)
    assert offsets(step.decide().commit, step.view) == [{0}]
    assert len(passes) == 1

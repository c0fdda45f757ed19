"""BACD: worked examples of the adapted threshold."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scripted import built
from tiny_decoding import SPEC, canvas_of
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step.decision import to_host
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from samplers.bacd import BACD


X = None
"""A position that is committed already."""


class Blocks:
    """One block per sequence; feeds confidences step by step."""

    def __init__(self, rule: Sampler, count: int, length: int = 4):
        self.rule = rule
        self.canvas = canvas_of(*[[0] * length] * count)
        self.state = SamplerState(rule.fields(), self.canvas.capacity, "cpu")
        for row in range(count):
            self.state.append()
            self.open(row)

    def open(self, row: int) -> None:
        self.canvas.enter_block(row, 3, int(self.canvas.length[row]))
        self.state.enter_block(row)

    def step(
        self, *rows: Sequence[float | None], dtype: torch.dtype = torch.float32
    ) -> tuple[list[float], list[set[int]]]:
        """(tau, committed positions) of each sequence."""
        assert isinstance(self.rule, BACD)
        score = torch.tensor([[c or 0.0 for c in row] for row in rows], dtype=dtype)
        candidates = torch.tensor([[c is not X for c in row] for row in rows])
        positions = (torch.arange(score.shape[1]) + 3).repeat(len(rows), 1)
        logits = torch.zeros(*score.shape, SPEC.vocab_size)
        view = View(self.canvas, positions, logits, candidates)
        tau = self.rule.tau(score, view, self.state).tolist()
        commit = self.rule.choose(score, view, self.state)
        decision = to_host(_decision(commit, score), positions.numpy(), candidates, False, None)
        self.rule.committed(self.canvas, decision, self.state)
        return tau, [set(row.nonzero().flatten().tolist()) for row in commit]


def _decision(commit: Tensor, score: Tensor):
    from dllm.step.decision import Decision

    return Decision(commit, torch.zeros_like(commit, dtype=torch.int64), score)


def bacd(*options: str) -> Sampler:
    return built("sampler=bacd", *options)


EXAMPLES = {
    "B1": [
        ((0.80, 0.60, 0.70, 0.30), 0.80, {0}),
        ((X, 0.60, 0.70, 0.30), 0.80, {2}),
        ((X, 0.77, X, 0.74), 0.75, {1}),
        ((X, X, X, 0.50), 0.7567, {3}),
    ],
    "B2": [
        ((0.50, 0.40, 0.55, 0.30), 0.60, {2}),
        ((0.62, 0.61, X, 0.58), 0.60, {0, 1}),
        ((X, X, X, 0.70), 0.60, {3}),
    ],
    "B3": [
        ((0.97, 0.93, 0.91, 0.89), 0.90, {0, 1, 2}),
        ((X, X, X, 0.50), 0.90, {3}),
    ],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name: str):
    blocks = Blocks(bacd(), 1)
    for row, tau, committed in EXAMPLES[name]:
        found = blocks.step(row)
        assert found[0][0] == pytest.approx(tau, abs=1e-4)
        assert found[1] == [committed]


def test_a_block_of_one_falls_back_and_the_next_one_starts_anew():  # B4
    blocks = Blocks(bacd(), 1, length=1)
    assert blocks.step((0.30,))[1] == [{0}]
    blocks.open(0)
    assert blocks.step((0.80,))[0] == [pytest.approx(0.80)]


def test_history_belongs_to_the_sequence():  # B5
    blocks = Blocks(bacd(), 2)
    _, committed = blocks.step((0.80, 0.20, 0.20, 0.20), (0.95, 0.95, 0.95, 0.95))
    assert committed == [{0}, {0, 1, 2, 3}]
    blocks.open(1)
    tau, committed = blocks.step((X, 0.79, 0.20, 0.20), (X, X, X, X))
    assert tau[0] == pytest.approx(0.80)
    assert committed == [{1}, set()]
    # The first sequence leaves: the second keeps its own, empty history.
    blocks.canvas.keep([1])
    blocks.state.keep([1])
    assert blocks.step((0.70, 0.20, 0.20, 0.20))[0] == [pytest.approx(0.70)]


def test_the_mean_is_rounded_like_the_confidences():  # B8
    blocks = Blocks(bacd(), 1)
    blocks.step((0.8984375, X, X, 0.0), dtype=torch.bfloat16)
    blocks.step((X, 0.703125, X, 0.0), dtype=torch.bfloat16)
    blocks.step((X, X, 0.65234375, 0.0), dtype=torch.bfloat16)
    assert blocks.step((X, X, X, 0.5), dtype=torch.bfloat16)[0] == [0.75]


def test_commits_contain_those_of_the_plain_threshold():
    generator = np.random.default_rng(0)
    for _ in range(50):
        blocks = Blocks(bacd(), 1, length=8)
        score = tuple(generator.uniform(0.2, 1.0, 8).tolist())
        _, (committed,) = blocks.step(score)
        sure = {i for i, c in enumerate(score) if c >= 0.9} | {int(np.argmax(score))}
        assert sure <= committed


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"confidence_lower=0\.9 exceeds"):
        bacd("sampler.confidence_lower=0.9", "sampler.confidence_upper=0.5")

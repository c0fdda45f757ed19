"""Dystruct (reconstruction): worked examples of the order of blocks and their steps."""

from typing import Any

import numpy as np
import pytest
import torch

from dllm.config import build, compose
from samplers.dystruct.block_schedule import BlockSchedule


def schedule(**options: Any) -> BlockSchedule:
    given = [f"sampler.schedule.{key}={value}" for key, value in options.items()]
    return build(compose(["sampler=dystruct", *given]).sampler.schedule, "schedule")


def energies(rule: BlockSchedule, decided: set[int], blocks: list[int]) -> list[float]:
    """Positions count from one committed position before the first block."""
    canvas = np.array([i - 1 in decided or i == 0 for i in range(25)])
    unrest = [0.6, 0.2, 0.5]
    return [rule.energy(unrest[k], rule.anchoring(canvas, 1 + 8 * k, 9 + 8 * k)) for k in blocks]


def test_schedule():  # D8
    rule, generator = schedule(), torch.Generator()
    first = energies(rule, set(), [0, 1, 2])
    assert first == pytest.approx([1.1, 0.8967, 1.3161], abs=1e-4)
    assert rule.choose(first, generator) == 1
    later = energies(rule, set(range(8, 16)), [0, 2])
    assert later == pytest.approx([0.6, 1.0], abs=1e-4)
    anchors = schedule(instability_weight=0.0)
    assert energies(anchors, set(), [0, 1, 2]) == pytest.approx([0.5, 0.6967, 0.8161], abs=1e-4)


def test_a_hot_schedule_is_any_order():
    rule = schedule(temperature=1e6)
    generator = torch.Generator().manual_seed(0)
    assert {rule.choose([0.1, 5.0, 9.0], generator) for _ in range(60)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("total", "unrest", "steps"),
    [(24, [0.6, 0.2, 0.5], [8, 4, 8]), (24, [0.9, 0.05, 0.5], [8, 2, 8]), (12, [0.3] * 3, [4] * 3)],
)
def test_steps(total: int, unrest: list[float], steps: list[int]):  # D9
    assert schedule(steps_per_token=total / 24).steps([8, 8, 8], unrest) == steps

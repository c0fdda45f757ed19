"""Worked examples of KLASS."""

import math
from dataclasses import replace

import pytest
import torch
from written import PROMPT, offsets, one, rule, step_of, steps


CLOSE = (0.97, 0.96, 0.95, 0.94, 0.5)


def test_klass_waits_for_stability() -> None:
    whole = {"region__block_length": "null"}
    assert steps("klass", CLOSE, **whole) == [[0], [1], [2, 3], [4]]
    sure = (0.97, 0.96, 0.95, 0.5, 0.97, 0.96, 0.95, 0.94)
    assert steps("klass", sure) == [[0], [1], [2], [3], [4], [5, 6, 7]]


def test_klass_divergence() -> None:
    written = rule("klass", **{"region.block_length": "null"})

    def seen(*p: float) -> list[float]:
        return [*[math.log(x) for x in p], *[-math.inf] * (24 - len(p))]

    step = step_of(written, (0.5,), logits={0: seen(0.86, 0.09, 0.05)})
    written.observe(step.view, step.state)
    later = step_of(written, (0.5,), logits={0: seen(0.93, 0.04, 0.03)}).view
    written.observe(replace(later, canvas=step.canvas), step.state)
    first, second = step.state["klass_kl"][0, len(PROMPT)].tolist()
    assert second == pytest.approx(0.0250, abs=5e-5)
    assert first == pytest.approx(27, abs=1)


def test_klass_masks_behind_a_block_are_decoded_further_or_left() -> None:
    sure = (0.99, 0.98, 0.97, 0.96, 0.95, 0.5)
    options = {"steps": 3, "region__block_length": "null"}
    committed = steps("klass", sure, **options)
    assert committed == [[0, 1], [2, 3], [4], [5]]
    assert steps("klass", sure, masks_left="leave", **options) == committed[:3]


def test_klass_strictness() -> None:
    for inclusive, expected in (("true", {0, 1}), ("false", {0})):
        written = rule("klass", inclusive=inclusive, **{"region.block_length": "null"})
        step = step_of(written, (0.95, 0.9), step=1)
        step.state["klass_kl"][:] = 0.0
        score = torch.tensor([[0.95, 0.9]], dtype=torch.float64)
        assert offsets(written.choose(score, step.view, step.state), step.view) == [expected]


def test_klass_without_stability_is_a_strict_threshold() -> None:
    written = rule("klass", kl_threshold=1e9, history=1, **{"region.block_length": "null"})
    assert one(written, (0.95, 0.91, 0.89, 0.3)) == {0, 1}
    assert one(written, (0.5, 0.6)) == {1}


def test_klass_commits_one_of_the_ready_positions() -> None:
    found = {}
    for unmask in ("all", "max_conf", "min_kl", "random"):
        written = rule("klass", unmask=unmask, **{"region.block_length": "null"})
        step = step_of(written, (0.95, 0.93, 0.91, 0.5), step=1)
        step.state["klass_kl"][0, len(PROMPT) :] = torch.tensor([[0.005], [0.001], [0.002], [0.0]])
        score = torch.tensor([[0.95, 0.93, 0.91, 0.5]], dtype=torch.float64)
        (found[unmask],) = offsets(written.choose(score, step.view, step.state), step.view)
    assert found["all"] == {0, 1, 2}
    assert found["max_conf"] == {0}
    assert found["min_kl"] == {1}
    assert len(found["random"]) == 1 and found["random"] <= found["all"]

"""Worked examples of CreditDecoding."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tiny_decoding import sampler
from written import rule, step_of

from dllm.step.sampler import Sampler


VOCABULARY = 24


def distribution(*p: float) -> list[float]:
    """Log-probabilities of the first tokens after the end token; nothing else is possible."""
    return [-math.inf] * 2 + [math.log(x) for x in p] + [-math.inf] * (VOCABULARY - 2 - len(p))


def run(written: Sampler, sequence: Sequence[Sequence[float]], masks: Sequence[int] = ()) -> list:
    """(credit by token, fused probabilities) after each step at one position."""
    step = step_of(written, [0.5] * 4)
    transform = written.logits_transform
    assert transform is not None
    seen = []
    for number, p in enumerate(sequence):
        if masks:
            step.canvas.tokens[0, 3 : 3 + 4 - masks[number]] = 9
        logits = step.view.logits.clone()
        logits[0, 3] = torch.tensor(distribution(*p), dtype=torch.float64)
        view = step.view.with_logits(logits)
        written.observe(view, step.state)
        at = int(view.positions[0, 3])
        credit = dict(
            zip(
                step.state["credit_tokens"][0, at].tolist(),
                step.state["credit"][0, at].tolist(),
                strict=True,
            )
        )
        fused = transform.apply(view, step.state).logits[0, 3].softmax(-1)
        width = len(p)
        seen.append(([credit.get(2 + i, 0.0) for i in range(width)], fused[2 : 2 + width].tolist()))
    return seen


@pytest.mark.parametrize(
    ("preset", "credit", "confidence"),
    [
        ("credit", (0.9029, 1.6252, 2.2030, 2.6653), (0.7018, 0.7467, 0.7721, 0.7883)),
        ("credit_paper", (0.9029, 1.5349, 1.9773, 2.2870), (0.6950, 0.7330, 0.7530, 0.7648)),
        ("credit_v1", None, (0.6915, 0.7275, 0.7457, 0.7560)),
    ],
)
def test_constant_distribution(preset, credit, confidence) -> None:
    seen = run(rule(preset), [(0.6, 0.4)] * 4)
    assert [fused[0] for _, fused in seen] == pytest.approx(confidence, abs=6e-5)
    if credit:
        assert [held[0] for held, _ in seen] == pytest.approx(credit, abs=6e-5)


def test_commits_what_a_plain_threshold_never_would() -> None:
    seen = run(rule("credit"), [(0.7, 0.2, 0.1)] * 5)
    expected = (0.7872, 0.8229, 0.8425, 0.8547, 0.8630)
    assert [fused[0] for _, fused in seen] == pytest.approx(expected, abs=6e-5)


def test_changing_favourite() -> None:
    sequence = [(0.5, 0.3, 0.2), (0.5, 0.3, 0.2), (0.3, 0.5, 0.2), (0.45, 0.35, 0.2)]
    seen = run(rule("credit"), sequence)
    credit = [(0.8706, 0, 0), (1.567, 0, 0), (1.2536, 0.8706, 0), (1.8553, 0.6964, 0)]
    fused = [(0.608, 0.235, 0.157), (0.659, 0.205, 0.136), (0.352, 0.515, 0.133)]
    fused.append((0.570, 0.308, 0.122))
    for (held, p), held_expected, p_expected in zip(seen, credit, fused, strict=True):
        assert held == pytest.approx(held_expected, abs=6e-5)
        assert p == pytest.approx(p_expected, abs=6e-4)


def test_token_flip() -> None:
    held, fused = run(rule("credit"), [(0.6, 0.4)] * 3 + [(0.45, 0.55)])[-1]
    assert held == pytest.approx((1.7624, 0.8873), abs=6e-5)
    assert fused == pytest.approx((0.5165, 0.4835), abs=6e-5)


@pytest.mark.parametrize(
    ("p", "dinfer", "paper"), [(0.80, 3, 5), (0.75, 8, None), (0.85, 1, 2), (0.88, 1, 1)]
)
def test_steps_until_a_threshold(p: float, dinfer: int, paper: int | None) -> None:
    for preset, expected in (("credit", dinfer), ("credit_paper", paper)):
        seen = run(rule(preset), [(p, 1 - p)] * 40)
        reached = [i + 1 for i, (_, fused) in enumerate(seen) if fused[0] >= 0.9]
        assert (reached[0] if reached else None) == expected


def test_adaptive_schedule() -> None:
    seen = run(rule("credit_adaptive"), [(0.6, 0.4)] * 4, masks=(4, 3, 2, 1))
    expected = (0.6000, 0.6331, 0.6783, 0.7389)
    assert [fused[0] for _, fused in seen] == pytest.approx(expected, abs=6e-5)


def test_without_fusion_it_is_the_plain_rule() -> None:
    plain = rule("dinfer_threshold", threshold=0.8)
    for row in ((0.9, 0.85, 0.7), (0.3, 0.2), (0.5,)):
        step = step_of(rule("credit", **{"logits_transform.fusion": 0}), row)
        bare = step_of(plain, row)
        assert torch.equal(step.decide().commit, bare.decide().commit)


def test_only_masked_rows_gain_and_decided_ones_decay() -> None:
    step = step_of(rule("credit"), (0.9, 0.8))
    step.rule.observe(step.view, step.state)
    gained = step.state["credit"][0, 3:5, 0].clone()
    step.canvas.tokens[0, 3] = 9
    rows = step.view.candidates.clone()
    rows[0, 0] = False
    step.rule.observe(replace(step.view, candidates=rows), step.state)
    held = step.state["credit"][0, 3:5, 0]
    assert float(held[0]) == pytest.approx(0.8 * float(gained[0]), rel=1e-6)
    assert held[1] > gained[1]


def test_credit_starts_anew_in_every_block() -> None:
    step = step_of(rule("credit"), (0.9, 0.8))
    step.rule.observe(step.view, step.state)
    step.state.enter_block(0)
    assert float(step.state["credit"].abs().sum()) == 0
    assert int((step.state["credit_tokens"] >= 0).sum()) == 0


@pytest.mark.parametrize("base", ["threshold", "factor", "localleap", "dinfer_hierarchy"])
def test_composes_with_other_rules(base: str) -> None:
    written = sampler(f"sampler={base}", "sampler/logits_transform=credit")
    step = step_of(written, (0.86, 0.5, 0.4))
    decision = step.decide()
    # 0.86 is lifted above 0.9 by the first step's credit.
    assert bool(decision.commit[0, 0])
    assert float(decision.score[0, 0]) > 0.9


@pytest.mark.parametrize(
    ("preset", "threshold", "first", "limit"),
    [
        ("credit", 0.80, 0.716, 0.550),
        ("credit", 0.90, 0.849, 0.727),
        ("credit", 0.95, 0.922, 0.847),
        ("credit_paper", 0.80, 0.722, 0.618),
        ("credit_paper", 0.90, 0.853, 0.781),
        ("credit_paper", 0.95, 0.924, 0.881),
    ],
)
def test_effective_thresholds(preset: str, threshold: float, first: float, limit: float) -> None:
    for steps, smallest in ((1, first), (60, limit)):
        for p, passes in ((smallest + 0.001, True), (smallest - 0.001, False)):
            _, fused = run(rule(preset), [(p, 1 - p)] * steps)[-1]
            assert (fused[0] >= threshold) == passes

"""The trace's raw probabilities, forced commits and times."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scripted import built
from test_branches import exploring
from tiny_decoding import MASK, Predictor, decode, ragged_prompts, random_model, sampler

from dllm.engine import batch
from dllm.step.canvas import Prompt
from dllm.step.trace import Trace


MODEL = random_model()


def expected(prompt: Prompt, answer: np.ndarray, position: int, token: int) -> float:
    canvas = torch.tensor([[*prompt.tokens, *answer.tolist()]])
    places = torch.arange(canvas.shape[1])[None]
    with torch.inference_mode():
        logits = MODEL.logits(MODEL.hidden(canvas, places, None, None))[0].float()
    return float(logits[len(prompt.tokens) + position].softmax(-1)[token])


def check(prompt: Prompt, trace: Trace) -> set[int]:
    """Compares every commit's probability with a forward of its own; returns the sizes of steps.
    Drafted tokens are those of the canvas before the step, the others see them."""
    before, sizes = np.full(prompt.gen_length, MASK), set()
    for step, after in zip(trace.steps, trace.replay(), strict=True):
        drafted = step.marks.get("drafted", [])
        with_drafts = before.copy()
        with_drafts[drafted] = after[drafted]
        for position, token, p in zip(step.positions, step.tokens, step.probabilities, strict=True):
            seen = before if position in drafted else with_drafts
            assert p == pytest.approx(expected(prompt, seen, position, token), rel=1e-4)
        before = after
        sizes.add(len(step.positions))
    return sizes


@pytest.mark.parametrize(
    "options",
    [
        # Scores are random numbers or of changed logits: what is recorded is raw all the same.
        ("sampler=threshold", "sampler.threshold=0.3"),
        ("sampler=random",),
        ("sampler=threshold", "sampler.threshold=0.5", "sampler/logits_transform=credit"),
        ("sampler=threshold", "sampler/proposer=gumbel", "sampler.proposer.temperature=3"),
    ],
)
def test_raw_probabilities(options: tuple[str, ...]) -> None:
    prompts = ragged_prompts()
    outcomes = decode(sampler(*options), prompts, Predictor(MODEL), record=True, batch_size=4)
    for prompt in prompts:
        check(prompt, outcomes[prompt.sample_id].trace)


def test_of_the_branch_that_is_adopted() -> None:
    rule = built("sampler=freedave", "sampler.draft_steps=4", "sampler.base.region.block_length=4")
    prompts, sizes = ragged_prompts(), set()
    outcomes = decode(rule, prompts, Predictor(MODEL), record=True)
    for prompt in prompts:
        sizes |= check(prompt, outcomes[prompt.sample_id].trace)
    assert max(sizes) > 1


def test_tokens_that_no_branch_predicts() -> None:
    """The explored token is put into every branch: unknown, unless the sampler says it."""

    class Saying(type(exploring(3))):
        def select(self, view, state):
            decision = super().select(view, state)
            p = torch.full(view.positions.shape, torch.nan)
            p[:, 0] = 0.25
            return replace(decision, probability=p)

    rule, prompts = exploring(3, 4), ragged_prompts(2)
    for said in (False, True):
        if said:
            rule = Saying(**{k: v for k, v in vars(rule).items()})
        for outcome in decode(rule, prompts, record=True).values():
            for step in outcome.trace.steps:
                explored, followed = step.probabilities
                assert explored == (0.25 if said else None)
                assert 0 < followed <= 1


def test_forced_commits_and_times() -> None:
    class Idle(type(sampler("sampler=threshold"))):
        def choose(self, score, view, state):
            return torch.zeros_like(view.candidates)

    prompts = ragged_prompts(3)
    idle = Idle(**vars(sampler("sampler=threshold")))
    for outcome in decode(idle, prompts, record=True, batch_size=2).values():
        assert all(step.forced for step in outcome.trace.steps)
        times = [step.seconds for step in outcome.trace.steps]
        assert times == sorted(times) and times[0] >= 0
        again = Trace.from_json(outcome.trace.to_json())
        assert again == outcome.trace
        assert [step.seconds for step in again.steps] == times
    for outcome in decode(sampler("sampler=threshold"), prompts, record=True).values():
        assert not any(step.forced for step in outcome.trace.steps)
        assert "forced" not in outcome.trace.to_json()["steps"][0]


def test_nothing_is_computed_for_a_trace_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*arguments: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(batch, "committed_probabilities", unwanted)
    decode(sampler("sampler=threshold"), ragged_prompts(2))
    with pytest.raises(AssertionError, match="computed"):
        decode(sampler("sampler=threshold"), ragged_prompts(2), record=True)

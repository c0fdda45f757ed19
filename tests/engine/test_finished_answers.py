"""No answer leaves with masks in it unsaid, whatever the rule."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from tiny_decoding import (
    EOS,
    MASK,
    WrittenPredictor,
    decode,
    decode_written,
    ragged_prompts,
    sampler,
)

from dllm.step.canvas import Canvas, Prompt
from dllm.step.decision import Decision
from dllm.step.eos import EosPolicy
from dllm.step.prediction import View
from dllm.step.state import SamplerState
from samplers.threshold import Threshold


@dataclass(frozen=True, kw_only=True)
class Tired(Threshold):
    """Commits nothing at all after its first step and is done with a block in two."""

    may_commit_nothing: ClassVar[bool] = True

    def max_steps(self, positions: int) -> int:
        return 3 * positions

    def select(self, view: View, state: SamplerState) -> Decision:
        decision = super().select(view, state)
        first = view.column(view.canvas.step_in_block == 0)
        return replace(decision, commit=decision.commit & first)

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        return bool(canvas.step_in_block[row] >= 2)


def tired() -> Tired:
    plain = sampler("sampler=threshold")
    assert isinstance(plain, Threshold)
    return Tired(**vars(plain))


def test_masks_that_a_rule_leaves_fail_the_answer() -> None:
    outcome = decode_written(tired(), (5, 6, 7, 8), (0.99, 0.99, 0.5, 0.5))
    assert outcome.tokens == (5, 6, MASK, MASK)
    assert outcome.failure == "sample one: 2 positions are still masked after 2 steps"


def test_only_the_sequence_that_holds_masks_fails() -> None:
    outcomes = decode(tired(), ragged_prompts(), batch_size=3)
    assert {o.failure is None for o in outcomes.values()} == {False}
    for outcome in outcomes.values():
        assert (MASK in outcome.tokens) == (outcome.failure is not None)


def test_a_rule_that_runs_into_its_bound_fails_the_answer() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Bounded(Tired):
        def max_steps(self, positions: int) -> int:
            return 1

    outcome = decode_written(Bounded(**vars(tired())), (5, 6, 7, 8), (0.99, 0.5, 0.5, 0.5))
    assert outcome.failure == "sample one: 3 positions are still masked after 1 steps"


def test_masks_behind_the_end_may_stay_where_the_policy_says_so() -> None:
    rule = sampler("sampler=threshold")
    answer = (5, EOS, 7, 8, 9, 10, 11, 12)
    outcome = decode_written(rule, answer, 0.99, eos=EosPolicy.STOP_AFTER_BLOCK)
    assert outcome.tokens == (5, EOS, 7, 8, *[MASK] * 4)
    assert outcome.failure is None


def test_a_policy_that_leaves_masks_behind_the_end_excuses_none_before_it() -> None:
    outcome = decode_written(tired(), (5, 6, 7, 8, 9, EOS, 11, 12), 0.5, eos=EosPolicy("none"))
    assert outcome.failure is not None
    ended = decode_written(
        tired(),
        (5, 6, 7, 8, 9, EOS, 11, 12),
        (0.99, 0.5, 0.5, 0.5, *[0.99] * 4),
        eos=EosPolicy.STOP_AFTER_BLOCK,
    )
    assert ended.failure == "sample one: 3 positions are still masked after 4 steps"


@pytest.mark.parametrize(
    "options",
    [
        ("sampler=dinfer_threshold", "sampler.threshold=1.0"),
        ("sampler=dinfer_hierarchy", "sampler.threshold=1.0", "sampler.low_threshold=1.0"),
        ("sampler=hierarchy_remask", "sampler.threshold=1.0", "sampler.low_threshold=1.0"),
        ("sampler=wino", "sampler.threshold=1.0"),
        ("sampler=credit_v1", "sampler.threshold=1.0"),
        ("sampler=llada2_edit", "sampler.threshold=1.0"),
    ],
)
def test_steps_are_bounded_by_the_canvas_that_blocks_round_up(options: tuple[str, ...]) -> None:
    rule = sampler(*options, "sampler/region=aligned")
    for outcome in decode(rule, ragged_prompts(), batch_size=3).values():
        assert outcome.failure is None and MASK not in outcome.tokens


@pytest.mark.parametrize("policy", EosPolicy)
def test_what_counts_as_committed_is_what_decisions_put_into_the_answer(policy: EosPolicy) -> None:
    """On a canvas that blocks counted from the prompt's start round up beyond the answer."""
    rule = sampler("sampler=threshold", "sampler/region=aligned", "sampler.region.block_length=4")
    predictor = WrittenPredictor((5, EOS, 8, 9, 10, 11, *[EOS] * 7), [0.95] * 13, 3)
    prompt = Prompt("one", (5, 6, 7), 10)
    outcome = decode(rule, [prompt], predictor, eos=policy, record=True)["one"]
    assert outcome.trace is not None
    decided = {position for step in outcome.trace.steps for position in step.positions}
    assert outcome.committed == len([p for p in decided if p < len(outcome.tokens)])
    assert outcome.committed >= outcome.tokens.index(EOS) + 1

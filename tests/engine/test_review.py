"""A decision under review: the order of the checks, what a veto changes and what it leaves."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from constraining import Forbidding, Watching
from tiny_decoding import (
    EOS,
    MASK,
    decode,
    decode_written,
    ragged_prompts,
    random_model,
    sampler,
)

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.session import Session
from dllm.engine.setting import Setting
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Prompt
from dllm.step.constraint import (
    Accepted,
    Proposal,
    Replacement,
    Unsatisfiable,
    Verdict,
    Vetoes,
)
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.prediction import View
from dllm.step.state import SamplerState
from dllm.step.trace import Trace
from samplers.threshold import Threshold


class Told(Watching):
    """Answers as it is told, and notes what it was shown."""

    def __init__(self, answer: Callable[[View, Proposal], Verdict]):
        super().__init__(set())
        self.answer = answer
        self.shown: list[Proposal] = []

    def verdict(self, view: View, proposal: Proposal) -> Verdict:
        self.shown.append(proposal)
        return self.answer(view, proposal)


def pairs(proposal: Proposal) -> list[tuple[int, int]]:
    return [(commit.position, commit.token) for commit in proposal.commits]


ALL = ("sampler=threshold", "sampler.threshold=0")
ANSWER, SURE = [4, 5, 6, 7], [0.5, 0.9, 0.6, 0.8]
"""At positions 3 to 6, so that the order of the checks is 4, 6, 5, 3."""


def written(constraint: Watching, *options: str, **more: object) -> Outcome:
    return decode_written(
        sampler(*(options or ALL)), ANSWER, SURE, constraint=constraint, record=True, **more
    )


def test_commits_come_in_the_order_of_their_scores() -> None:
    told = Told(lambda view, proposal: Accepted())
    outcome = written(told)
    (proposal,) = told.shown
    assert pairs(proposal) == [(4, 5), (6, 7), (5, 6), (3, 4)]
    assert proposal.before.tolist() == [5, 6, 7, MASK, MASK, MASK, MASK]
    assert proposal.after.tolist() == [5, 6, 7, *ANSWER]
    assert proposal.ends and not proposal.filled and not proposal.accepted
    assert outcome.cost.checks == 1 and not outcome.cost.rejections


def test_what_was_accepted_keeps_its_place_at_the_head() -> None:
    """As in the authors' loop: a refused position may rise above those already accepted, since its
    confidence is that of the remaining tokens (arXiv 2508.10111, section 3.2)."""

    def answer(view: View, proposal: Proposal) -> Verdict:
        if (5, 6) in pairs(proposal):
            return Vetoes(tuple((5, token) for token in range(24) if token != 9), accepted=2)
        return Accepted()

    told = Told(answer)
    outcome = written(told)
    first, second = told.shown
    assert (first.accepted, second.accepted) == (0, 2)
    assert pairs(second) == [(4, 5), (6, 7), (5, 9), (3, 4)]
    assert second.commits[2].score == pytest.approx(1)
    assert outcome.tokens == (4, 5, 9, 7)
    assert outcome.cost.rejections == 1  # of 23 refused tokens one was proposed
    assert outcome.cost.checks == 2


def test_confidences_may_stay_those_of_all_tokens() -> None:
    def answer(view: View, proposal: Proposal) -> Verdict:
        if (5, 6) in pairs(proposal):
            return Vetoes(tuple((5, t) for t in range(24) if t != 9), renormalise=False)
        return Accepted()

    told = Told(answer)
    assert written(told).tokens == (4, 5, 9, 7)
    assert told.shown[1].commits[-1].position == 5
    assert told.shown[1].commits[-1].score == pytest.approx(0.4 / 23)


ONE_BY_ONE = ("sampler=ig_cd", "sampler.steps=1")


def test_one_commit_after_the_other() -> None:
    """Each proposal holds what was accepted and one commit more, and nothing else."""
    told = Told(lambda view, proposal: Accepted())
    outcome = written(told, *ONE_BY_ONE)
    order = [(4, 5), (6, 7), (5, 6), (3, 4)]
    for number, proposal in enumerate(told.shown):
        assert (pairs(proposal), proposal.accepted) == (order[: number + 1], number)
        changes = proposal.changes
        ranked = [c for c in zip(changes.commit_positions, changes.commit_tokens, strict=True)]
        assert sorted(ranked) == sorted(pairs(proposal))
        assert changes.commit_scores.size == number + 1
        there = {position: token for position, token in pairs(proposal)}
        assert proposal.after.tolist() == [5, 6, 7, *(there.get(at, MASK) for at in range(3, 7))]
        assert proposal.ends == (number == 3)
    assert outcome.tokens == tuple(ANSWER)
    assert (outcome.cost.checks, outcome.cost.rejections, outcome.cost.nfe) == (4, 0, 1)


def test_one_refusal_after_the_other() -> None:
    """The position's next best token comes where its confidence puts it."""

    def answer(view: View, proposal: Proposal) -> Verdict:
        asked = pairs(proposal)[-1]
        # More than what was asked about: only that token is taken back.
        return Vetoes((asked, (3, 4))) if asked == (6, 7) else Accepted()

    told = Told(answer)
    outcome = written(told, *ONE_BY_ONE)
    assert [pairs(proposal)[-1] for proposal in told.shown] == [
        (4, 5),
        (6, 7),
        (5, 6),
        (3, 4),
        (6, 1),  # the lowest of all others, which tie
    ]
    assert outcome.tokens == (4, 5, 6, 1) and outcome.failure is None
    assert outcome.cost.rejections == 1


@pytest.mark.parametrize("eos", list(EosPolicy))
def test_nothing_is_asked_or_written_once_the_answer_has_ended(eos: EosPolicy) -> None:
    """The surest commit is an end token in the first place: of the others those are asked about
    that a policy without an end for them needs."""
    told = Told(lambda view, proposal: Accepted())
    answer, sure = [EOS, 5, 6, 7], [0.9, 0.5, 0.6, 0.8]
    rule = sampler(*ONE_BY_ONE)
    outcome = decode_written(rule, answer, sure, constraint=told, record=True, eos=eos)
    assert outcome.trace is not None and outcome.failure is None
    asked = [pairs(proposal)[-1][0] - 3 for proposal in told.shown]
    assert asked == [0, 3, 2, 1][: len(asked)]
    assert sorted(outcome.trace.steps[0].positions) == sorted(asked)
    assert [proposal.ends for proposal in told.shown] == [*[False] * (len(asked) - 1), True]


@pytest.mark.parametrize("fresh", [False, True])
def test_draws_after_a_veto(fresh: bool) -> None:
    """The same noise, or new noise for all but what was accepted."""
    rule = sampler(*ALL, "sampler/proposer=gumbel", "sampler.proposer.temperature=5")
    object.__setattr__(rule, "fresh_draws", fresh)
    drawn: dict[str, list[list[tuple[int, int]]]] = {}

    def answer(view: View, proposal: Proposal) -> Verdict:
        prompt = view.canvas.prompts[0].sample_id
        seen = drawn.setdefault(prompt, [])
        seen.append(pairs(proposal))
        if prompt == "a" and len(seen) < 4:
            return Vetoes((pairs(proposal)[1],), accepted=1)
        return Accepted()

    prompts = [Prompt("a", (3, 4), 4), Prompt("b", (5,), 4)]
    try:
        decode(rule, prompts, constraint=Told(answer), batch_size=2)
        first, second = drawn["a"][:2]
        assert second[0] == first[0]
        others = {pair for pair in first[2:] if pair not in second}
        assert bool(others) == fresh
        alone = decode(rule, prompts, constraint=Told(lambda v, p: Accepted()))["b"]
        both = decode(rule, prompts, constraint=Told(answer), batch_size=2)["b"]
        assert alone.tokens == both.tokens
    finally:
        object.__delattr__(rule, "fresh_draws")


@pytest.mark.parametrize("eos", [EosPolicy.STOP_UNTIL_EOS, EosPolicy.FILL_AT_ONCE])
def test_a_replacement_is_written_and_what_follows_from_it_is_reviewed(eos: EosPolicy) -> None:
    def answer(view: View, proposal: Proposal) -> Verdict:
        return Accepted() if proposal.rewritten else Replacement({3: 8, 4: EOS})

    told = Told(answer)
    outcome = written(told, eos=eos)
    assert outcome.tokens == (8, EOS, EOS, EOS)
    assert [proposal.rewritten for proposal in told.shown] == [False, True]
    assert told.shown[1].filled == (5, EOS) and told.shown[1].ends
    assert told.shown[1].after.tolist() == [5, 6, 7, 8, EOS, EOS, EOS]
    assert outcome.cost.replacements == 1
    assert outcome.trace is not None and outcome.trace.steps[0].review is not None
    assert outcome.trace.steps[0].review.rewritten
    assert outcome.trace.steps[0].positions == [0, 1]


def test_a_replacement_masks_and_edits_what_was_decided() -> None:
    def answer(view: View, proposal: Proposal) -> Verdict:
        if proposal.rewritten or view.canvas.step[0] != 2:
            return Accepted()
        return Replacement({3: 9, 4: MASK, 5: 6, 6: 8})  # 4 and 6 were decided first

    told = Told(answer)
    outcome = written(told, "sampler=threshold", "sampler.threshold=1")
    changes = next(p.changes for p in told.shown if p.rewritten)
    assert changes.remask_positions.tolist() == [4]
    assert changes.edit_positions.tolist() == [6]
    assert changes.commit_positions.tolist() == [3, 5]
    assert outcome.tokens == (9, 5, 6, 8)
    assert outcome.trace is not None
    assert tuple(list(outcome.trace.replay())[-1]) == outcome.tokens


def test_a_replacement_says_how_probable_its_tokens_were() -> None:
    """By this step's prediction; 0 where it has none, as behind the block."""

    def answer(view: View, proposal: Proposal) -> Verdict:
        if proposal.rewritten or view.canvas.step[0]:
            return Accepted()
        return Replacement({3: 4, 4: 9, 5: 6})

    told = Told(answer)
    block = ("sampler=threshold", "sampler.threshold=1", "sampler.region.block_length=2")
    outcome = written(told, *block)
    rewritten = next(proposal for proposal in told.shown if proposal.rewritten)
    scores = {commit.position: commit.score for commit in rewritten.commits}
    assert scores == {3: pytest.approx(0.5), 4: pytest.approx(0.1 / 23), 5: 0}
    assert outcome.tokens == (4, 9, 6, 7)


def test_refused_edits_are_counted_and_left_out() -> None:
    """By the token, not as a kind: the decision is made again without them."""
    refused: list[tuple[int, int]] = []

    def answer(view: View, proposal: Proposal) -> Verdict:
        changes = proposal.changes
        edits = list(
            zip(changes.edit_positions.tolist(), changes.edit_tokens.tolist(), strict=True)
        )
        if not edits:
            return Accepted()
        refused.append(edits[0])
        return Vetoes((edits[0],))

    rule = sampler("sampler=hierarchy_remask")
    found = decode(rule, ragged_prompts(), constraint=Told(answer), record=True)
    assert refused
    said = [
        pair
        for outcome in found.values()
        for step in (outcome.trace.steps if outcome.trace is not None else [])
        for pair in (step.review.refused if step.review is not None else [])
    ]
    assert sorted(said) == sorted(refused)
    assert sum(outcome.cost.rejections for outcome in found.values()) == len(refused)
    assert not any(outcome.failure for outcome in found.values())


@pytest.mark.parametrize(
    ("kind", "options", "writes"),
    [
        ("edit", ("sampler=hierarchy_remask",), lambda p: p.changes.edit_positions.size),
        (
            "remask",
            ("sampler=hierarchy_remask",),
            lambda p: p.changes.remask_positions.size,
        ),
        (
            "length",
            ("sampler=eotp", "sampler.base.region.block_length=4"),
            lambda p: p.after.size < p.before.size,
        ),
        ("end", ("sampler=threshold",), lambda p: p.filled),
    ],
)
def test_a_kind_of_change_is_left_out(
    kind: str, options: tuple[str, ...], writes: Callable[[Proposal], object]
) -> None:
    """The rest of the decision stands, and the sampler goes on."""

    def answer(view: View, proposal: Proposal) -> Verdict:
        return Vetoes(kinds=frozenset({kind})) if writes(proposal) else Accepted()  # type: ignore[arg-type]

    prompts = ragged_prompts()
    eos = EosPolicy.STOP_UNTIL_EOS if kind == "end" else EosPolicy.NONE
    rule = build(compose(options).sampler, "sampler") if kind == "length" else sampler(*options)
    with_it, without = Told(lambda view, proposal: Accepted()), Told(answer)
    free = decode(rule, prompts, constraint=with_it, eos=eos)
    bound = decode(rule, prompts, constraint=without, eos=eos, record=True)
    assert any(writes(proposal) for proposal in with_it.shown)
    assert not any(o.failure for o in free.values())
    left_out = [o for o in bound.values() if o.cost.rejections]
    assert left_out
    for outcome in left_out:
        assert outcome.trace is not None
        said = [step.review.left_out for step in outcome.trace.steps if step.review is not None]
        assert {k for kinds in said for k in kinds} == {kind}
        assert len(outcome.tokens) == next(
            p.gen_length for p in prompts if p.sample_id == outcome.sample_id
        )


def always(verdict: Verdict) -> Told:
    return Told(lambda view, proposal: verdict)


@pytest.mark.parametrize(
    ("constraint", "reason"),
    [
        (always(Unsatisfiable("budget of 100 spent")), "budget of 100 spent"),
        (always(Vetoes()), "the constraint refuses what can't be taken back: nothing"),
        (
            always(Vetoes(((0, 5),))),
            "the constraint refuses what can't be taken back: token 5 at 0",
        ),
        (always(Replacement({3: 7})), "the constraint refuses its own replacement"),
        (
            always(Replacement({2: 7})),
            "the constraint writes at 2, outside the answer [3, 7)",
        ),
        (
            always(Replacement({6: 7, 7: 7})),
            "the constraint writes at 7, outside the answer [3, 7)",
        ),
        (Forbidding(set(range(24))), "no token is allowed for 4 positions"),
        (
            Told(lambda view, p: Accepted() if p.rewritten else Replacement({3: MASK})),
            "the constraint has rewritten the answer 5 times",
        ),
    ],
)
def test_what_cannot_be_satisfied_ends_in_one_line(constraint: Watching, reason: str) -> None:
    outcome = written(constraint)
    assert outcome.failure == f"sample one: {reason}"
    assert set(outcome.tokens) == {MASK}
    others = decode(
        sampler(*ALL),
        [Prompt("one", (5, 6, 7), 4), Prompt("two", (5, 6, 7, 8), 4)],
        constraint=OnlyOf("one", constraint),
        batch_size=2,
    )
    assert others["two"].failure is None and MASK not in others["two"].tokens


class OnlyOf(Forbidding):
    """Another constraint for one sample, none for the rest."""

    def __init__(self, sample: str, constraint: Forbidding):
        super().__init__(set())
        self.sample, self.constraint = sample, constraint

    def enter(self, canvas, row):
        mine = canvas.prompts[row].sample_id == self.sample
        return self.constraint.enter(canvas, row) if mine else self


class Completing(Watching):
    """Offers a completion when a sequence leaves; goes with short prompts only."""

    def __init__(self) -> None:
        super().__init__(set())
        self.left: list[list[int]] = []

    def check(self, prompt: Prompt) -> None:
        if len(prompt.tokens) > 3:
            raise ConfigError(f"sample {prompt.sample_id}: prompt of {len(prompt.tokens)} tokens")

    def leave(self, sequence: np.ndarray) -> str | None:
        super().leave(sequence)
        self.left.append(sequence.tolist())
        return "}"


def test_a_reviewer_leaves_with_its_sequence() -> None:
    completing = Completing()
    outcome = written(completing)
    assert completing.left == [[5, 6, 7, *outcome.tokens]]
    assert outcome.completion == "}"
    setting = Setting(
        Predictor(random_model()), sampler(*ALL[:1]), NoCache(), constraint=completing
    )
    session = Session(setting)
    ticket = session.submit(Prompt("one", (5, 6, 7), 8))
    session.step()
    session.cancel(ticket)
    assert len(completing.left) == 2 and MASK in completing.left[1]
    with pytest.raises(ConfigError, match="sample two: prompt of 4 tokens"):
        session.submit(Prompt("two", (5, 6, 7, 8), 8))


def test_seconds_and_time_outs_are_counted() -> None:
    told = always(Accepted(checks=3, timeouts=2))
    outcome = written(told, "sampler=threshold", "sampler.threshold=1")
    assert outcome.cost.steps == 4
    assert (outcome.cost.checks, outcome.cost.timeouts) == (12, 8)
    assert 0 < outcome.cost.constraint_seconds < outcome.cost.seconds
    trace = outcome.trace
    assert trace is not None
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace
    reviews = [step.review for step in trace.steps if step.review is not None]
    assert sum(review.seconds for review in reviews) == outcome.cost.constraint_seconds


def test_the_guards_commits_are_reviewed() -> None:
    class Idle(Threshold):
        def choose(self, score: torch.Tensor, view: View, state: SamplerState) -> torch.Tensor:
            return torch.zeros_like(view.candidates)

    told = Told(lambda v, p: Vetoes(((4, 5),)) if (4, 5) in pairs(p) else Accepted())
    outcome = decode_written(Idle(**vars(sampler(*ALL))), ANSWER, SURE, constraint=told)
    assert all(proposal.changes.forced for proposal in told.shown)
    assert outcome.tokens[1] != 5 and outcome.cost.rejections >= 1

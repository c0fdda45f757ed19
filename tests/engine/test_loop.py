"""The loop: independence of the batch, counts, bounds, vetoes, broken numbers."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from constraining import Forbidding
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_decoding import (
    EOS,
    MASK,
    SPEC,
    CountingPredictor,
    WrittenPredictor,
    decode,
    decode_written,
    ragged_prompts,
    random_model,
    sampler,
)

from dllm import config as configuration
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.step.canvas import Prompt
from dllm.step.constraint import Accepted, Proposal, Verdict
from dllm.step.eos import EosPolicy
from dllm.step.plan import ForwardKind, Plan, Request, pad_positions
from dllm.step.prediction import Prediction, View
from dllm.step.trace import Trace, pack_traces, parsed_traces


SAMPLERS = {
    "one token per step": ["sampler=low_confidence"],
    "quota": ["sampler=low_confidence", "sampler.steps=3", "sampler.region.block_length=null"],
    "random": ["sampler=random"],
    "guidance": ["sampler=low_confidence", "sampler.cfg_scale=1.5"],
    "threshold": ["sampler=threshold", "sampler.threshold=0.4"],
    "factor": ["sampler=factor"],
    "localleap": ["sampler=localleap", "sampler.threshold=0.6", "sampler.relaxed_threshold=0.3"],
    "gumbel": ["sampler=threshold", "sampler.threshold=0.3", "sampler/proposer=gumbel"],
}


@pytest.fixture(params=SAMPLERS.values(), ids=SAMPLERS.keys())
def rule(request: pytest.FixtureRequest):
    return sampler(*request.param)


def test_tokens_do_not_depend_on_the_batch(rule) -> None:
    prompts = ragged_prompts()
    alone = decode(rule, prompts, batch_size=1)
    for batch_size in (4, 16):
        together = decode(rule, prompts, batch_size=batch_size)
        for name, outcome in alone.items():
            assert together[name].tokens == outcome.tokens
            assert together[name].cost.forwards == outcome.cost.forwards
            assert together[name].cost.rows == outcome.cost.rows


def test_tokens_do_not_depend_on_the_order(rule) -> None:
    prompts = ragged_prompts()
    forward = decode(rule, prompts, batch_size=4)
    backward = decode(rule, prompts[::-1], batch_size=4)
    assert {k: v.tokens for k, v in forward.items()} == {k: v.tokens for k, v in backward.items()}


def test_the_longest_of_a_list_are_decoded_first() -> None:
    """None of them is left to the end, alone: 12 steps for 12 positions beside 4 + 4 + 4."""
    rule = sampler("sampler=low_confidence")
    prompts = [Prompt(str(n), (5, 6, 7), length) for n, length in enumerate((4, 4, 4, 12))]
    predictor = CountingPredictor(random_model())
    together = decode(rule, prompts, predictor, batch_size=2)
    assert predictor.calls == 12
    alone = decode(rule, prompts, batch_size=1)
    assert list(alone) == ["0", "1", "2", "3"]
    for name, outcome in alone.items():
        assert together[name].tokens == outcome.tokens


def test_answers_are_complete(rule) -> None:
    for prompt, outcome in zip(
        ragged_prompts(), decode(rule, ragged_prompts(), batch_size=1).values(), strict=True
    ):
        assert outcome.failure is None
        assert len(outcome.tokens) == prompt.gen_length == outcome.committed
        assert MASK not in outcome.tokens


def test_forwards_are_the_model_calls(rule) -> None:
    predictor = CountingPredictor(random_model())
    outcomes = decode(rule, ragged_prompts(), predictor, batch_size=1)
    assert sum(outcome.cost.nfe for outcome in outcomes.values()) == predictor.calls
    shared = CountingPredictor(random_model())
    outcomes = decode(rule, ragged_prompts(), shared, batch_size=4)
    assert sum(outcome.cost.nfe for outcome in outcomes.values()) == shared.row_calls
    assert shared.calls < shared.row_calls


def test_one_token_per_step_takes_one_forward_per_token() -> None:
    for outcome in decode(sampler("sampler=low_confidence"), ragged_prompts()).values():
        assert outcome.cost.forwards == {ForwardKind.STEP: len(outcome.tokens)}
        assert outcome.cost.steps == len(outcome.tokens)


def test_the_seed_decides_what_is_drawn() -> None:
    rule = sampler(*SAMPLERS["gumbel"])
    first, again, other = (
        [o.tokens for o in decode(rule, ragged_prompts(), seed=seed).values()] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_random_remasking_differs_from_the_most_confident_order() -> None:
    orders = []
    for name in ("low_confidence", "random"):
        outcomes = decode(sampler(f"sampler={name}"), ragged_prompts(), record=True)
        orders.append([s.positions for o in outcomes.values() for s in o.trace.steps])
    assert orders[0] != orders[1]


def test_guidance_follows_its_formula_and_counts_its_second_canvas() -> None:
    model, scale = random_model(), 1.5
    prompt = Prompt("one", (3, 4, 5, 6), 4)
    outcome = decode(sampler(*SAMPLERS["guidance"]), [prompt], Predictor(model), record=True)["one"]
    canvas = torch.tensor([[3, 4, 5, 6, 0, 0, 0, 0], [0] * 8])
    positions = torch.arange(8).expand(2, 8)
    with torch.inference_mode():
        given_prompt, free = model.logits(model.hidden(canvas, positions, None, None))[:, 4:]
    probabilities = (free + (scale + 1) * (given_prompt - free)).softmax(-1)
    probabilities[:, MASK] = 0
    best = int(probabilities.amax(-1).argmax())
    first = outcome.trace.steps[0]
    assert (first.positions, first.tokens) == ([best], [int(probabilities[best].argmax())])
    assert outcome.cost.aux_forwards == outcome.cost.nfe == 4
    assert outcome.cost.rows == 4 * 2 * 8


def test_a_drawn_mask_token_is_never_committed() -> None:
    rule = sampler(
        "sampler=threshold",
        "sampler.threshold=0",
        "sampler/proposer=gumbel",
        "sampler.proposer.temperature=100",
    )
    prompts = [Prompt(f"p{i}", (3,), 32) for i in range(8)]
    outcomes = decode(rule, prompts, batch_size=4)
    assert not any(MASK in outcome.tokens for outcome in outcomes.values())
    # Nearly uniform draws: all other tokens do occur.
    assert {t for o in outcomes.values() for t in o.tokens} == set(range(1, SPEC.vocab_size))


def test_a_predicted_mask_token_gives_way_to_the_next_best() -> None:
    outcome = decode_written(sampler("sampler=threshold"), [MASK, 4, 5, 6], 0.9)
    assert MASK not in outcome.tokens
    assert outcome.tokens[1:] == (4, 5, 6)


@pytest.mark.parametrize("name", ["threshold", "gumbel", "random", "one token per step"])
def test_a_constraint_is_obeyed_whatever_the_batch(name: str) -> None:
    forbidden = Forbidding(set(range(2, 24, 2)))
    rule, prompts = sampler(*SAMPLERS[name]), ragged_prompts()
    free = decode(rule, prompts)
    assert any(set(o.tokens) & forbidden.tokens for o in free.values())
    alone = decode(rule, prompts, batch_size=1, constraint=forbidden)
    assert not any(set(o.tokens) & (forbidden.tokens | {MASK}) for o in alone.values())
    together = decode(rule, prompts, batch_size=5, constraint=forbidden)
    assert {k: v.tokens for k, v in alone.items()} == {k: v.tokens for k, v in together.items()}


def test_a_veto_in_one_sequence_leaves_the_random_draws_of_the_others() -> None:
    class OnlyFirst(Forbidding):
        def review(self, view: View, proposal: Proposal) -> Verdict:
            first = view.canvas.prompts[0].sample_id == "s0"
            return super().review(view, proposal) if first else Accepted()

    rule, prompts = sampler(*SAMPLERS["gumbel"]), ragged_prompts()
    free = decode(rule, prompts, batch_size=9)
    some = decode(rule, prompts, batch_size=9, constraint=OnlyFirst(set(free["s0"].tokens)))
    assert some["s0"].tokens != free["s0"].tokens
    assert all(some[name].tokens == free[name].tokens for name in free if name != "s0")


def test_a_constraint_without_a_way_out_ends_and_fails_the_sample() -> None:
    outcomes = decode(
        sampler("sampler=threshold"),
        ragged_prompts(2),
        constraint=Forbidding(set(range(1, SPEC.vocab_size))),
    )
    for outcome in outcomes.values():
        assert set(outcome.tokens) == {MASK}
        assert outcome.failure is not None and f"sample {outcome.sample_id}" in outcome.failure


def test_the_progress_guard_commits_where_the_rule_takes_nothing() -> None:
    class Idle(type(sampler("sampler=threshold"))):
        def choose(self, score, view, state):
            return torch.zeros_like(view.candidates)

    rule = sampler("sampler=threshold")
    idle = Idle(**vars(rule))
    sure = [0.3, 0.9, 0.5, 0.7]
    outcome = decode_written(idle, [4, 5, 6, 7], sure, record=True)
    assert outcome.tokens == (4, 5, 6, 7)
    assert [step.positions for step in outcome.trace.steps] == [[1], [3], [2], [0]]


def test_revoking_as_much_as_is_committed_still_ends() -> None:
    class Restless(type(sampler("sampler=threshold"))):
        def select(self, view, state):
            return replace(super().select(view, state), remask=view.decided)

        def plan(self, canvas, eligible, state):
            index = np.arange(canvas.capacity)
            return Request(pad_positions((index >= 3) & (index < canvas.length[:, None])))

    rule = Restless(**vars(sampler("sampler=threshold", "sampler.region.block_length=null")))
    outcome = decode_written(rule, [4, 5, 6, 7, 8], 0.2)
    assert MASK not in outcome.tokens
    assert outcome.cost.steps <= 5


class PoisonedPredictor(Predictor):
    """Spoils the logits of sequences that start with token 9, from their fourth forward on."""

    value = float("nan")

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        prediction = super().predict(plan, store)
        assert prediction is not None
        logits = prediction.logits.clone()
        for entry, tokens in enumerate(plan.tokens):
            if tokens[0] == 9 and (tokens[3:11] != MASK).sum() >= 3:
                logits[entry, 0, 3] = self.value
        return Prediction(logits, prediction.valid)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_broken_logits_fail_one_sample_and_name_the_step(value: float, batch_size: int) -> None:
    prompts = [Prompt("good", (3, 4, 5), 8), Prompt("bad", (9, 4, 5), 8), Prompt("late", (4,), 4)]
    predictor = PoisonedPredictor(random_model())
    predictor.value = value
    rule = sampler("sampler=low_confidence", "sampler.region.block_length=null")
    spoilt = decode(rule, prompts, predictor, batch_size=batch_size)
    assert spoilt["bad"].failure == "sample bad: logits are not finite at step 3"
    assert spoilt["bad"].cost.steps == 4
    clean = decode(rule, prompts)
    for name in ("good", "late"):
        assert spoilt[name].failure is None
        assert spoilt[name].tokens == clean[name].tokens


@pytest.mark.parametrize("name", ["dystruct", "low_confidence"])
def test_a_sequence_that_was_given_up_leaves_a_trace(name: str, tmp_path: Path) -> None:
    """Rules that look at all logits before they decide see no NaN, nor does the trace."""

    class Poisoned(Predictor):
        def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
            prediction = super().predict(plan, store)
            assert prediction is not None
            return Prediction(prediction.logits * float("nan"), prediction.valid)

    rule = configuration.build(configuration.compose([f"sampler={name}"]).sampler, "sampler")
    rule = replace(rule, delimiter_ids=[3]) if name == "dystruct" else rule
    prompts, predictor = [Prompt("bad", (9, 4, 5), 32)], Poisoned(random_model())
    outcome = decode(rule, prompts, predictor, record=True, alternatives=2)["bad"]
    assert outcome.failure == "sample bad: logits are not finite at step 0"
    assert outcome.trace is not None
    (tmp_path / "traces").write_bytes(pack_traces([outcome.trace]))
    assert [type(trace) for trace in parsed_traces(tmp_path / "traces")] == [Trace]


def test_broken_logits_of_the_canvas_without_prompt_fail_its_sample() -> None:
    class HalfPoisoned(Predictor):
        def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
            prediction = super().predict(plan, store)
            assert prediction is not None
            logits = prediction.logits.clone()
            batch = len(plan.tokens) // 2
            for b in range(batch):
                if plan.tokens[b, 0] == 9:
                    logits[batch + b, 0, 3] = float("nan")
            return Prediction(logits, prediction.valid)

    prompts = [Prompt("good", (3, 4, 5), 8), Prompt("bad", (9, 4, 5), 8)]
    guided = sampler(*SAMPLERS["guidance"])
    spoilt = decode(guided, prompts, HalfPoisoned(random_model()), batch_size=2)
    assert spoilt["bad"].failure == "sample bad: logits are not finite at step 0"
    assert spoilt["good"].tokens == decode(guided, prompts)["good"].tokens


def test_what_does_not_fit_is_refused_before_any_forward() -> None:
    predictor = CountingPredictor(random_model(replace(SPEC, max_positions=16)))
    rule = sampler("sampler=threshold")
    too_long = [Prompt("short", (3,), 8), Prompt("long", tuple(range(2, 12)), 8)]
    message = r"sample long: prompt of 10 tokens \+ gen_length=8 exceeds the model's 16 positions"
    with pytest.raises(ConfigError, match=message):
        decode(rule, too_long, predictor)
    with pytest.raises(ConfigError, match="block_length=4 does not divide gen_length=6"):
        decode(rule, [Prompt("odd", (3,), 6)], predictor)
    assert predictor.calls == 0


def test_no_prompts_no_outcomes() -> None:
    assert decode(sampler("sampler=threshold"), []) == {}


def test_degenerate_options_give_one_token_per_step() -> None:
    base = decode(sampler("sampler=low_confidence", "sampler.conf_dtype=float64"), ragged_prompts())
    for options in (
        ["sampler=threshold", "sampler.threshold=1"],
        ["sampler=localleap", "sampler.threshold=1", "sampler.relaxed_threshold=1"],
        ["sampler=factor", "sampler.factor=0.000001", "sampler.last_rank_quirk=false"],
    ):
        for name, outcome in decode(sampler(*options), ragged_prompts()).items():
            assert outcome.tokens == base[name].tokens
            assert outcome.cost.nfe == base[name].cost.nfe


def test_threshold_zero_takes_a_block_per_forward() -> None:
    rule = sampler("sampler=threshold", "sampler.threshold=0")
    for outcome in decode(rule, ragged_prompts(), record=True).values():
        assert outcome.cost.nfe == len(outcome.tokens) // 4
        assert [step.block for step in outcome.trace.steps] == list(range(outcome.cost.nfe))


def test_a_block_is_finished_before_the_next_begins() -> None:
    for outcome in decode(sampler("sampler=localleap"), ragged_prompts(), record=True).values():
        blocks = [p // 4 for step in outcome.trace.steps for p in step.positions]
        assert all(a <= b for a, b in pairwise(blocks))


@settings(max_examples=25, deadline=None)
@given(
    sure=st.lists(st.floats(0.1, 0.99), min_size=8, max_size=8),
    threshold=st.floats(0.0, 1.0),
)
def test_threshold_steps_are_those_of_its_definition(sure: list[float], threshold: float) -> None:
    assume(all(abs(value - threshold) > 1e-9 for value in sure))
    rule = replace(sampler("sampler=threshold"), threshold=threshold)
    outcome = decode_written(rule, [4, 5, 6, 7, 8, 9, 10, 11], sure)
    certain = [sum(value >= threshold for value in block) for block in (sure[:4], sure[4:])]
    assert outcome.cost.nfe == sum(1 + 4 - count if count else 4 for count in certain)
    assert outcome.tokens == (4, 5, 6, 7, 8, 9, 10, 11)


def test_written_predictions_reach_the_rule_unchanged() -> None:
    outcome = decode_written(
        sampler("sampler=low_confidence"), [4, 5, 6, 7], [0.4, 0.6, 0.5, 0.7], record=True
    )
    assert [step.scores for step in outcome.trace.steps] == [
        [pytest.approx(value)] for value in (0.7, 0.6, 0.5, 0.4)
    ]


def test_the_end_of_one_answer_lets_the_next_prompt_in() -> None:
    prompts = [Prompt(f"p{i}", (3, 4), 8) for i in range(5)]
    calls = 0

    class Counting(WrittenPredictor):
        def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
            nonlocal calls
            calls += 1
            assert len(plan.tokens) <= 2
            return super().predict(plan, store)

    answer = [EOS, 5, 6, 7, 8, 9, 10, 11]
    outcomes = decode(
        sampler("sampler=threshold"),
        prompts,
        Counting(answer, [0.95] * 8, 2),
        batch_size=2,
        eos=EosPolicy.FILL_AFTER_BLOCK,
    )
    assert all(o.tokens == (EOS, 5, 6, 7, *[EOS] * 4) for o in outcomes.values())
    assert calls == 3

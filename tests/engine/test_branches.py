"""Branches: M canvases of a sequence in one call, one adopted with its keys and values."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scripted import built
from tiny_decoding import SPEC, CountingPredictor, ragged_prompts, random_model, sampler

from dllm.cache.causal import CausalCache
from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.forwards import Forwards, OutOfMemory
from dllm.engine.loop import Decoder
from dllm.engine.setting import Served
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.plan import ForwardKind, Plan, Request, pad_positions
from dllm.step.prediction import Prediction, View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField
from samplers.parts.branches import Branches, picked


PLAIN = sampler("sampler=threshold")
LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Exploring(Sampler):
    """The first open position takes the token among `values` after which the next one is surest;
    the sequence's own canvas is never fed."""

    values: tuple[int, ...]

    def fields(self) -> tuple[StateField, ...]:
        return (*super().fields(), StateField("unused"))

    def plan(self, canvas: Canvas, eligible: np.ndarray, state: SamplerState) -> Request:
        branches = np.repeat(canvas.tokens[:, None], len(self.values), axis=1)
        for row in range(canvas.batch):
            if eligible[row].any():
                branches[row, :, eligible[row].argmax()] = self.values
        return Request(pad_positions(eligible), branches)

    def select(self, view: View, state: SamplerState) -> Decision:
        branches = Branches.of(view)
        sequences = branches.as_sequences()
        tokens, sure = sequences.top[1], sequences.logits.softmax(-1).amax(-1)
        sure = branches.split(sure.where(sequences.candidates, 0)).amax(dim=2)
        choice = sure.argmax(dim=1)
        first = view.candidates & (view.candidates.cumsum(dim=1) == 1)
        put, follow = picked(branches.tokens, choice), picked(branches.split(tokens), choice)
        second = view.candidates & (view.candidates.cumsum(dim=1) == 2)
        return Decision(
            first | second,
            put.where(first, follow),
            picked(branches.split(sequences.top[0]), choice),
            adopt=choice,
        )


def exploring(*values: int) -> Exploring:
    return Exploring(
        region=PLAIN.region, proposer=PLAIN.proposer, conf_dtype="float64", values=values
    )


def test_m_branches_cost_m_canvases() -> None:
    predictor = CountingPredictor(random_model())
    widths = []

    class Watching(CountingPredictor):
        def predict(self, plan: Plan, store: KVStore | None):
            widths.append(len(plan.slots))
            return super().predict(plan, store)

    predictor = Watching(random_model())
    for outcome in Decoder(predictor, exploring(3, 4, 5), NoCache()).decode(ragged_prompts()):
        canvas = outcome.prompt_length + len(outcome.tokens)
        assert outcome.cost.rows == 3 * canvas * outcome.cost.nfe
        assert outcome.cost.aux_forwards == 2 * outcome.cost.nfe
        assert outcome.cost.nfe == len(outcome.tokens) // 2
    assert set(widths) == {3}


CAUSAL = ModelSpec(**{**vars(SPEC), "attention": "causal"})
CAUSAL_SHIFTED = replace(CAUSAL, logit_shift=1)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_adopted_branch_keeps_what_it_computed(batch_size: int) -> None:
    """An exact cache makes the same of every branch as none does, and feeds less."""
    outcomes = []
    for cache in (NoCache(), CausalCache()):
        decoder = Decoder(
            Predictor(random_model(CAUSAL)),
            exploring(7, 3, 9),
            cache,
            batch_size=batch_size,
            record=True,
        )
        found = {outcome.sample_id: outcome for outcome in decoder.decode(ragged_prompts())}
        outcomes.append([found[prompt.sample_id] for prompt in ragged_prompts()])
    adopted = set()
    for plain, cached in zip(*outcomes, strict=True):
        assert cached.tokens == plain.tokens
        assert cached.cost.forwards[ForwardKind.STEP] == plain.cost.nfe
        adopted |= set(cached.tokens) & {7, 3, 9}
        fed = [step.fed for step in cached.trace.steps if step.kind is ForwardKind.STEP]
        # Three branches of a block of four: the adopted one's first position is stored, the other
        # one that was committed is fed, then a branched one and the masks behind it.
        assert fed == [12, 9, *[15, 9] * (len(fed) // 2 - 1)]
        assert cached.cost.stale == 0
    assert adopted == {7, 3, 9}


def test_only_the_adopted_branch_is_stored() -> None:
    model = random_model(CAUSAL)
    tokens = torch.tensor([[3, 4, 5, 6], [3, 4, 8, 9], [7, 7, 7, 7], [7, 7, 2, 2]])
    slots = torch.arange(4).expand(4, 4)

    def plan(rows: list[int]) -> Plan:
        return Plan(
            kind=ForwardKind.STEP,
            tokens=tokens[rows],
            positions=slots[rows],
            slots=slots[rows],
            fed=np.full(2, 8),
            padded=False,
            within="causal",
            write=torch.ones(len(rows), 4, dtype=torch.bool),
            logits_for=slots[rows],
        )

    # Two sequences of two branches each: entries are the first branches, then the second ones.
    store, expected = (KVStore(CAUSAL, 2, 4, torch.float32) for _ in range(2))
    Predictor(model).predict(plan([0, 2, 1, 3]), store)
    assert not store.valid.any()
    store.adopt([1, 0])
    Predictor(model).predict(plan([1, 2]), expected)
    assert store.valid.all()
    assert store.token.tolist() == expected.token.tolist() == tokens[[1, 2]].tolist()
    for ours, theirs in zip(
        (*store.keys, *store.values), (*expected.keys, *expected.values), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    store.hand_on(0)
    store.adopt([0, 1])  # nothing is pending any more
    assert store.valid.tolist() == [[False] * 4, [True] * 4]


def test_absent_branches_are_not_computed() -> None:
    class Fewer(Exploring):
        def plan(self, canvas: Canvas, eligible: np.ndarray, state: SamplerState) -> Request:
            request = super().plan(canvas, eligible, state)
            assert request.branches is not None
            request.branches[:, 1:] = -1
            return request

    values = vars(exploring(4, 5))
    both, one = exploring(4), Fewer(**values)
    for cache in ("none", "dual"):
        policy = build(compose([f"cache={cache}"]).cache, "cache")
        runs = [
            list(Decoder(Predictor(random_model()), rule, policy).decode(ragged_prompts()))
            for rule in (both, one)
        ]
        for ours, theirs in zip(*runs, strict=True):
            assert ours.tokens == theirs.tokens
            assert ours.cost.rows == theirs.cost.rows
            assert ours.cost.aux_forwards == theirs.cost.aux_forwards == 0


@pytest.mark.parametrize("eos", list(EosPolicy))
def test_rounds_and_canvases_whatever_becomes_of_the_answer(eos: EosPolicy) -> None:
    """Without a cache a canvas is computed whole: eNFE counts those of every call, however long
    they were, also where the answer is cut later; and a finished sequence costs nothing more."""
    prompts = [replace(prompt, stop_ids=tuple(range(2, 9))) for prompt in ragged_prompts(6)]
    verifier = {"verifier": Served(Predictor(random_model(CAUSAL_SHIFTED, 3)), NoCache())}
    cut = 0
    for rule, others in (
        (sampler("sampler=threshold"), {}),
        (sampler("sampler=low_confidence", "sampler.cfg_scale=1"), {}),
        (built("sampler=ete", "sampler.base.region.block_length=4", "sampler.allow_end=true"), {}),
        (built("sampler=freedave", "sampler.base.region.block_length=4"), {}),
        (sampler("sampler=deer", "sampler.draft_length=3"), verifier),
    ):
        counted = []
        for size in (1, 4):
            predictor = CountingPredictor(random_model())
            decoder = Decoder(predictor, rule, NoCache(), eos=eos, batch_size=size, others=others)
            found = {outcome.sample_id: outcome for outcome in decoder.decode(prompts)}
            costs = {name: one.cost for name, one in found.items()}
            counted.append({n: (c.nfe, c.aux_forwards, c.rows, c.enfe) for n, c in costs.items()})
            assert predictor.row_calls == sum(cost.nfe for cost in costs.values())
            for prompt in prompts:
                cost, outcome = costs[prompt.sample_id], found[prompt.sample_id]
                canvases = cost.nfe + cost.aux_forwards + sum(cost.other_forwards.values())
                assert cost.enfe == pytest.approx(canvases)
                cut += len(outcome.tokens) < prompt.gen_length
        assert counted[0] == counted[1]
    assert (cut > 0) == eos.shortens


class Short(Predictor):
    """Has memory for that many canvases per sequence."""

    def __init__(self, canvases: int):
        super().__init__(random_model())
        self.canvases = canvases

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        if len(plan.slots) > self.canvases * len(plan.fed):
            raise torch.OutOfMemoryError("no memory")
        return super().predict(plan, store)


FEWER = "memory is short: {} canvases per sequence instead of {}"


DRAFTS = "sampler=freedave sampler.draft_steps=4 sampler.base.region.block_length=4"
STUCK = (
    "sampler=ete sampler.ahead=0 sampler.trigger=stuck sampler.base.threshold=0.5 "
    "sampler.min_exploit=2 sampler.base.region.block_length=4 sampler.candidate_ratio=0.3 "
    "sampler.candidate_top_p=1"
)
"""Its branches come after a few steps of a block."""


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    ("rule", "cache"),
    [
        (DRAFTS, "none"),
        (DRAFTS, "prefix"),
        (DRAFTS, "dual"),
        (DRAFTS, "vicinity cache.warmup_steps=1"),
        (DRAFTS, "window cache.refresh_cycle=4 cache.outer_window=6"),
        (STUCK, "dkv"),
    ],
)
def test_a_forward_that_does_not_fit_leaves_no_trace(
    rule: str, cache: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a cache noted of it, what is stored and what is counted: all is as if the canvases that
    do not fit had never been asked for."""

    def decoded(canvases: int) -> dict[str, Outcome]:
        policy = build(compose(f"cache={cache}".split()).cache, "cache")
        decoder = Decoder(Short(canvases), built(*rule.split()), policy, batch_size=batch_size)
        return {outcome.sample_id: outcome for outcome in decoder.decode(ragged_prompts(6))}

    with pytest.warns(UserWarning, match="memory is short: 2 canvases per") as said:
        short = decoded(2)
    assert len(said) == 1
    start = Forwards.__init__

    def fewer(self: Forwards, *given: Any) -> None:
        start(self, *given)
        self._most_branches = 2

    monkeypatch.setattr(Forwards, "__init__", fewer)
    asked = decoded(4)
    for name, outcome in asked.items():
        assert short[name].tokens == outcome.tokens
        ours, theirs = (dict(vars(one.cost)) for one in (short[name], outcome))
        for clock in ("seconds", "model_seconds"):
            del ours[clock], theirs[clock]
        assert ours == theirs


def test_the_last_canvas_is_not_left_out() -> None:
    """Halved until one is left; then, as where nothing may be left out, the run ends."""
    rule = built("sampler=freedave", "sampler.draft_steps=5", "sampler.base.region.block_length=4")
    prompt = replace(ragged_prompts(1)[0], tokens=(3, 4), gen_length=8)
    with pytest.warns(UserWarning) as said:
        (outcome,) = Decoder(Short(1), rule, NoCache()).decode([prompt])
    assert outcome.cost.aux_forwards == 0 and outcome.failure is None
    # Drafts in a block of four: three beside the canvas.
    assert [str(one.message) for one in said] == [FEWER.format(2, 4), FEWER.format(1, 2)]
    guided = sampler("sampler=low_confidence", "sampler.cfg_scale=1.0")
    for wanting, canvases, size in ((rule, 0, "1 x 10"), (guided, 1, "2 x 10")):
        line = f"^batch_size=1: out of memory in a forward of {size} rows$"
        with pytest.raises(OutOfMemory, match=line):
            list(Decoder(Short(canvases), wanting, NoCache()).decode([prompt]))


def test_a_forward_that_only_stores_may_not_fit_either() -> None:
    """A prompt's prefill, a block's last forward: said in one line, too."""

    class Prefill(Predictor):
        def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
            if plan.logits_for is None:
                raise torch.OutOfMemoryError("no memory")
            return super().predict(plan, store)

    rule = built("sampler=threshold", "sampler/region=streaming", "sampler.region.window=4")
    decoder = Decoder(Prefill(random_model(CAUSAL)), rule, CausalCache())
    with pytest.raises(
        OutOfMemory, match=r"^batch_size=1: out of memory in a forward of 1 x \d+ ro"
    ):
        list(decoder.decode(ragged_prompts(1)))

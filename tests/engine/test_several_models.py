"""Several models in one session: one drafts by diffusion, an autoregressive one verifies."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from tiny_decoding import MASK, SPEC, CountingPredictor, ragged_prompts, random_model, sampler

from dllm.cache.causal import CausalCache
from dllm.cache.none import NoCache
from dllm.cache.policy import CachePolicy
from dllm.engine.loop import Decoder
from dllm.engine.setting import Served
from dllm.errors import ConfigError, RunError
from dllm.forward.predictor import Predictor
from dllm.models.spec import NO_MASK
from dllm.step.canvas import Canvas, Prompt
from dllm.step.decision import Decision, HostDecision
from dllm.step.plan import ForwardKind, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField


VERIFIER = replace(SPEC, attention="causal", logit_shift=1, mask_id=NO_MASK)
PLAIN = sampler("sampler=threshold", "sampler.region.block_length=null")


@dataclass(frozen=True, kw_only=True)
class Drafting(Sampler):
    """All open positions by the canvas's model; the verifier's greedy choice up to and including
    its first disagreement."""

    models: ClassVar[frozenset[str]] = frozenset({"verifier"})

    def fields(self) -> tuple[StateField, ...]:
        return StateField("draft", ("canvas",), torch.int64), StateField("drafted", (), torch.bool)

    def plan(self, canvas: Canvas, eligible: np.ndarray, state: SamplerState) -> Request:
        positions = pad_positions(eligible)
        if not state["drafted"].all():
            return Request(positions, decides=False)
        draft = np.where(canvas.masked(), state["draft"].numpy(), canvas.tokens)
        return Request(positions, draft[:, None], model="verifier")

    def observe(self, view: View, state: SamplerState) -> None:
        if view.branches is None:
            state["draft"] = view.on_canvas(view.top[1], state["draft"])
        state["drafted"] = torch.full_like(state["drafted"], view.branches is None)

    def select(self, view: View, state: SamplerState) -> Decision:
        greedy, score = view.top[1], view.top[0]
        drafted = state["draft"].gather(1, view.positions.clamp(min=0))
        wrong = ((drafted != greedy) & view.candidates).int()
        commit = view.candidates & (wrong.cumsum(dim=1) - wrong == 0)
        return Decision(commit, greedy, score)

    def committed(self, canvas: Canvas, decision: HostDecision, state: SamplerState) -> None:
        state["drafted"] = torch.zeros_like(state["drafted"])


def drafting() -> Drafting:
    return Drafting(region=PLAIN.region, proposer=PLAIN.proposer, conf_dtype="float64")


def autoregressive(prompt: Prompt, model, without: tuple[int, ...] = ()) -> tuple[int, ...]:
    tokens = list(prompt.tokens)
    with torch.inference_mode():
        for _ in range(prompt.gen_length):
            count = len(tokens)
            mask = torch.ones(1, 1, count, count, dtype=torch.bool).tril()
            rows = torch.arange(count)[None]
            hidden = model.hidden(torch.tensor([tokens]), rows, mask, None)
            logits = model.logits(hidden[:, -1:])
            logits[..., list(without)] = -torch.inf
            tokens.append(int(logits.argmax()))
    return tuple(tokens[len(prompt.tokens) :])


@pytest.mark.parametrize("cache", [NoCache(), CausalCache()], ids=["none", "causal"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_drafts_of_one_model_are_verified_by_another(cache: CachePolicy, batch_size: int) -> None:
    verifier = CountingPredictor(random_model(VERIFIER, seed=3))
    drafter = CountingPredictor(random_model())
    served = {"verifier": Served(verifier, cache)}
    prompts = ragged_prompts()
    decoder = Decoder(
        drafter, drafting(), NoCache(), batch_size=batch_size, record=True, others=served
    )
    outcomes = {outcome.sample_id: outcome for outcome in decoder.decode(prompts)}
    own, other = Counter(), Counter()
    for prompt in prompts:
        outcome = outcomes[prompt.sample_id]
        assert outcome.failure is None
        # What is a mask on the canvas is no token of an answer.
        assert outcome.tokens == autoregressive(prompt, verifier.model, without=(MASK,))
        # One forward of each model per decision; the other one's are no part of the NFE.
        assert outcome.cost.nfe == outcome.cost.steps == outcome.cost.forwards[ForwardKind.STEP]
        assert outcome.cost.other_forwards["verifier", ForwardKind.STEP] == outcome.cost.steps
        assert outcome.cost.aux_forwards == 0
        assert outcome.trace is not None
        named = [step.model for step in outcome.trace.steps if step.kind is ForwardKind.STEP]
        assert named == [None, "verifier"] * outcome.cost.steps
        assert not any(step.positions for step in outcome.trace.steps if step.model is None)
        own += outcome.cost.forwards
        other += outcome.cost.other_forwards
    assert own.total() == drafter.row_calls
    assert other.total() == verifier.row_calls


def test_a_stored_prefix_is_not_fed_again() -> None:
    verifier = Served(Predictor(random_model(VERIFIER, seed=3)), CausalCache())
    decoder = Decoder(
        Predictor(random_model()), drafting(), NoCache(), record=True, others={"verifier": verifier}
    )
    (prompt,) = ragged_prompts(1)
    (outcome,) = decoder.decode([prompt])
    fed = [s.fed for s in outcome.trace.steps if s.model == "verifier"]
    assert fed[0] == len(prompt.tokens)
    # The last token of the prefix predicts the first drafted one; the last draft predicts nothing.
    assert fed[1] == prompt.gen_length + 1
    assert fed[2:] == sorted(fed[2:], reverse=True) and fed[-1] < fed[1]


def test_models_that_do_not_go_together() -> None:
    model = Predictor(random_model())
    with pytest.raises(ConfigError, match="Drafting asks for model 'verifier', which the session"):
        next(Decoder(model, drafting(), NoCache()).decode(ragged_prompts(1)))
    wrong = {"verifier": Served(model, CausalCache())}
    with pytest.raises(ConfigError, match="causal attention; that of model 'verifier' is full"):
        next(Decoder(model, drafting(), NoCache(), others=wrong).decode(ragged_prompts(1)))
    short = random_model(replace(VERIFIER, max_positions=8))
    brief = {"verifier": Served(Predictor(short), NoCache())}
    with pytest.raises(ConfigError, match="exceeds the 8 positions of model 'verifier'"):
        next(Decoder(model, drafting(), NoCache(), others=brief).decode(ragged_prompts(1)))


def test_a_sampler_that_never_decides_is_stopped() -> None:
    class Endless(type(PLAIN)):
        def plan(self, canvas, eligible, state):
            return replace(super().plan(canvas, eligible, state), decides=False)

    with pytest.raises(RunError, match="sampler=Endless plans on and never decides"):
        list(
            Decoder(Predictor(random_model()), Endless(**vars(PLAIN)), NoCache()).decode(
                ragged_prompts(1)
            )
        )

"""IG-CD: one token after the other, ranked anew after every refusal; the published example."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from constraining import Watching
from tiny_decoding import SPEC

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.constraints.canvases import CanvasChecker
from dllm.constraints.grammar import read_lark
from dllm.constraints.reviewing import CfgReviewer, Conduct
from dllm.constraints.vocabulary import Vocabulary
from dllm.engine.loop import Decoder
from dllm.forward.store import KVStore
from dllm.step.canvas import Prompt
from dllm.step.constraint import Accepted, Proposal, Verdict, Vetoes
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction, View


TEXTS = ("{", "}", '"a"', ":", "1", ",")
END, MASK = 6, 7
EXAMPLE = {
    0: {0: 5.0},
    1: {4: 4.0, 2: 3.5},
    2: {3: 3.0, 4: 2.5},
    3: {4: 2.0, 1: 1.0},
    4: {1: 3.0, 5: 2.0},
    5: {END: 6.0, 1: 1.0},
}


def logits_of(given: dict[int, dict[int, float]], length: int) -> torch.Tensor:
    logits = torch.full((length, 8), -4.0, dtype=torch.float64)
    logits[:, MASK] = -30
    for position, tokens in given.items():
        for token, logit in tokens.items():
            logits[position, token] = logit
    return logits


class Told:
    """Predicts the same logits whatever the canvas."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
        self.spec = replace(SPEC, vocab_size=8, mask_id=MASK, eos_ids=(END,))
        self.model = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float64)

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction:
        wanted = plan.logits_for
        assert wanted is not None
        return Prediction(self.logits[(wanted - 1).clamp(min=0)], None)


class Objects(Watching):
    """Objects of strings and numbers, by the exact check; notes (position, token, taken)."""

    def __init__(self, length: int) -> None:
        super().__init__(set())
        self.log: list[tuple[int, int, bool]] = []
        self.scores: list[float] = []
        grammar = read_lark(
            'start: "{" [pair ("," pair)*] "}"\npair: STRING ":" NUMBER\n'
            'STRING: /"[^"]*"/\nNUMBER: /0|[1-9][0-9]*/\n%ignore /[ ]+/\n'
        )
        vocabulary = Vocabulary((*(text.encode() for text in TEXTS), None, None))
        checker = CanvasChecker(grammar, vocabulary, MASK, [END], length, counted=False)
        conduct = Conduct(patience=None, budget=3, on_timeout="reject", check_timeout=60, prefix="")
        # Asked about one sequence only, and never about its text.
        self.reviewer = CfgReviewer(checker, conduct, None, None, "s", 1)  # type: ignore[arg-type]

    def verdict(self, view: View, proposal: Proposal) -> Verdict:
        verdict = self.reviewer.review(view, proposal)
        taken = isinstance(verdict, Accepted)
        asked = proposal.commits[-1]
        self.log.append((asked.position - 1, asked.token, taken))
        self.scores.append(asked.score)
        return verdict


def decoded(
    given: dict[int, dict[int, float]], length: int, *options: str
) -> tuple[Outcome, Objects]:
    config = compose(["sampler=ig_cd", "sampler.steps=1", *options])
    config.sampler.region.block_length = length
    constraint = Objects(length)
    run = Decoder(
        Told(logits_of(given, length)),  # type: ignore[arg-type]
        build(config.sampler, "sampler"),
        NoCache(),
        EosPolicy.FILL_AT_ONCE,
        constraint,
        record=True,
    )
    return next(run.decode([Prompt("s", (0,), length)])), constraint


def test_the_published_example() -> None:
    outcome, asked = decoded(EXAMPLE, 6)
    assert outcome.failure is None
    assert [TEXTS[token] for token in outcome.tokens[:5]] == ["{", '"a"', ":", "1", "}"]
    assert outcome.tokens[5] == END
    assert (outcome.cost.nfe, outcome.cost.rejections) == (1, 1)
    order = [(0, 0), (5, END), (4, 1), (3, 4), (1, 4), (1, 2), (2, 3)]
    assert asked.log == [(*pair, pair != (1, 4)) for pair in order]
    # The string has the confidence that the number had, so that it comes before the colon.
    expected = [0.9993, 0.9931, 0.7286, 0.7245, 0.6218, 0.9972, 0.6207]
    assert asked.scores == pytest.approx(expected, abs=6e-5)


def test_with_a_temperature_confidences_stay_those_of_all_tokens() -> None:
    # Noise of next to no temperature: the same proposals, but the string keeps its .377.
    options = ("sampler/proposer=gumbel", "sampler.proposer.temperature=0.001")
    outcome, asked = decoded(EXAMPLE, 6, *options)
    assert outcome.failure is None
    assert asked.log[4:] == [(1, 4, False), (2, 3, True), (1, 2, True)]
    assert asked.scores[-1] == pytest.approx(0.3771, abs=6e-5)


def test_an_end_token_overwrites_what_was_taken_to_its_right() -> None:
    # `}` at 1 and the end at 2 come after `}` at 3, which the end wipes out with its quota.
    given = {0: {0: 2.0}, 1: {1: 5.0}, 2: {END: 6.0}, 3: {1: 9.0}}
    outcome, asked = decoded(given, 4)
    assert asked.log == [(3, 1, True), (2, END, True), (1, 1, True), (0, 0, True)]
    assert outcome.failure is None
    assert outcome.tokens == (0, 1, END, END)


def test_the_budget_ends_the_sample_with_its_last_rejection() -> None:
    given = {0: {1: 6.0, 2: 5.0, 3: 4.0, 4: 3.0}}
    outcome, asked = decoded(given, 2)
    assert "its budget of 3 rejected tokens is spent" in str(outcome.failure)
    assert asked.log == [(0, 1, False), (0, 2, False), (0, 3, False)]


class Refusing(Watching):
    """Refuses the whole vocabulary where one token is wrong."""

    def verdict(self, view: View, proposal: Proposal) -> Verdict:
        asked = proposal.commits[-1]
        if asked.token in self.tokens:
            return Vetoes(tuple((asked.position, token) for token in range(MASK)))
        return Accepted()


def test_a_refusal_takes_back_the_token_asked_about_and_no_other() -> None:
    config = compose(["sampler=ig_cd", "sampler.steps=1"])
    config.sampler.region.block_length = 1
    told, rule = Told(logits_of({0: {1: 3.0, 2: 2.0}}, 1)), build(config.sampler, "sampler")
    run = Decoder(told, rule, NoCache(), constraint=Refusing({1}))  # type: ignore[arg-type]
    assert next(run.decode([Prompt("s", (0,), 1)])).tokens == (2,)

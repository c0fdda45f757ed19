"""DEER is lossless: what comes out is the verifier's own decoding, whatever drafts."""

import itertools
from collections import Counter
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from tiny_decoding import MASK, SPEC, ragged_prompts, random_model, sampler
from torch import Tensor

from dllm.cache.causal import CausalCache
from dllm.cache.none import NoCache
from dllm.cache.policy import CachePolicy
from dllm.engine.loop import Decoder
from dllm.engine.setting import Served
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.hub import EMBEDDED
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import load_tokenizer
from dllm.models.transformer import Transformer
from dllm.report.bits import SequenceBits
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from dllm.step.plan import ForwardKind, Plan
from dllm.step.prediction import Prediction, View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from samplers.deer import SEPARATOR, Deer


SAMPLING = "sampler/proposer=gumbel"
AUTOREGRESSIVE = replace(SPEC, attention="causal", logit_shift=1)
VERIFIER = random_model(AUTOREGRESSIVE, seed=3)
PROMPTS = ragged_prompts(6)


def deer(*options: str) -> Deer:
    whole = "sampler.region.block_length=null"
    rule = sampler("sampler=deer", whole, *[f"sampler.{option}" for option in options])
    assert isinstance(rule, Deer)
    return rule


def drafted(
    rule: Sampler,
    prompts: list[Prompt],
    drafter: Transformer,
    verifier: Transformer = VERIFIER,
    policy: CachePolicy | None = None,
    **options: Any,
) -> list[Outcome]:
    served = {"verifier": Served(Predictor(verifier), policy or CausalCache())}
    decoder = Decoder(Predictor(drafter), rule, NoCache(), others=served, **options)
    found = {outcome.sample_id: outcome for outcome in decoder.decode(prompts)}
    assert not any(outcome.failure for outcome in found.values())
    return [found[prompt.sample_id] for prompt in prompts]


@cache
def own_decoding() -> tuple[tuple[int, ...], ...]:
    """The verifier's greedy answers to the prompts, one token per forward."""
    rule = sampler("sampler=left_to_right", "sampler.region.block_length=null")
    decoder = Decoder(Predictor(VERIFIER), rule, CausalCache())
    found = {outcome.sample_id: outcome.tokens for outcome in decoder.decode(PROMPTS)}
    return tuple(found[prompt.sample_id] for prompt in PROMPTS)


DRAFTERS = {
    "random": random_model(),
    "causal": random_model(replace(SPEC, attention="causal"), seed=3),
    "itself": VERIFIER,
}


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("length", [1, 2, 8, 32])
@pytest.mark.parametrize("on_reject", ["break", "continue"])
def test_greedy_output_is_the_verifier_s(drafter: str, length: int, on_reject: str) -> None:
    """For every draft length, with and without cache and bonus, alone and in a batch."""
    options = f"draft_length={length}", f"on_reject={on_reject}"
    for bonus, policy, batch_size in (("true", CausalCache(), 1), ("false", NoCache(), 4)):
        rule, model = deer(*options, f"bonus={bonus}"), DRAFTERS[drafter]
        outcomes = drafted(rule, PROMPTS, model, policy=policy, batch_size=batch_size)
        assert tuple(outcome.tokens for outcome in outcomes) == own_decoding()


@pytest.mark.parametrize("on_reject", ["break", "continue"])
def test_a_draft_is_no_longer_than_what_is_open(on_reject: str) -> None:
    """Whatever was asked for: memory is taken for the drafts that there are."""
    rule = deer("draft_length=100000000", f"on_reject={on_reject}")
    outcomes = drafted(rule, PROMPTS, DRAFTERS["causal"], batch_size=4)
    assert tuple(outcome.tokens for outcome in outcomes) == own_decoding()


def test_forwards_of_both_models_are_counted() -> None:
    for on_reject in ("break", "continue"):
        rule = deer("draft_length=4", f"on_reject={on_reject}")
        for outcome in drafted(rule, PROMPTS, DRAFTERS["random"], record=True):
            verified = outcome.cost.other_forwards["verifier", ForwardKind.STEP]
            assert verified == outcome.cost.steps
            assert outcome.trace is not None
            steps = [step for step in outcome.trace.steps if step.positions]
            rejections = sum(bool(step.marks.get("rejected")) for step in steps)
            accepted = sum(len(step.marks.get("accepted", ())) for step in steps)
            assert rejections and accepted + verified >= len(outcome.tokens)
            if on_reject == "break":
                assert outcome.cost.nfe == verified
            else:
                # A draft outlives its rejected tokens.
                assert outcome.cost.nfe < verified


@pytest.mark.parametrize("options", [[], [SAMPLING]])
def test_the_trace_knows_the_verifier_s_probabilities(options: list[str]) -> None:
    """Of accepted drafts, too; a round is a verification."""
    whole = "sampler.region.block_length=null"
    rule = sampler("sampler=deer", whole, "sampler.draft_length=4", *options)
    prompt = PROMPTS[2]
    (outcome,) = drafted(rule, [prompt], VERIFIER, record=True)
    assert outcome.trace is not None
    found = {
        position: p
        for step in outcome.trace.steps
        for position, p in zip(step.positions, step.probabilities, strict=True)
    }
    tokens = torch.tensor([[*prompt.tokens, *outcome.tokens]])
    count = tokens.shape[1]
    causal = torch.ones(1, 1, count, count, dtype=torch.bool).tril()
    with torch.inference_mode():
        logits = VERIFIER.logits(VERIFIER.hidden(tokens, torch.arange(count)[None], causal, None))
    p = logits[0, len(prompt.tokens) - 1 : -1].softmax(-1)
    expected = p.gather(1, torch.tensor(outcome.tokens)[:, None])[:, 0].tolist()
    assert [found[i] for i in range(len(expected))] == pytest.approx(expected, rel=1e-4)
    bits = SequenceBits.of(outcome.trace, len(expected), None)
    assert bits.unknown == 0 and len(bits.rounds) == outcome.cost.steps


def test_a_drafter_that_is_right_needs_one_forward_per_block() -> None:
    """The verifier as its own drafter, one token at a time, is always right."""
    rule = deer("draft_length=1")
    for outcome in drafted(rule, PROMPTS, VERIFIER):
        # A draft and the bonus token in every step.
        assert outcome.cost.steps == len(outcome.tokens) // 2
        assert outcome.cost.other_forwards["verifier", ForwardKind.STEP] == outcome.cost.steps


class Reading(Predictor):
    """Keeps what it was given to read."""

    def __init__(self, model: Transformer):
        super().__init__(model)
        self.read: list[Tensor] = []

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        self.read.append(plan.tokens)
        return super().predict(plan, store)


@pytest.mark.parametrize("on_reject", ["break", "continue"])
def test_a_separator_stands_behind_the_drafts(on_reject: str) -> None:
    separator = 22
    rule = deer("draft_length=3", f"separator={separator}", f"on_reject={on_reject}")
    # Among the answers are some that hold it: it is a token as any other.
    assert any(separator in own for own in own_decoding())
    drafter = Reading(random_model())
    served = {"verifier": Served(Predictor(VERIFIER), CausalCache())}
    for prompt, own in zip(PROMPTS, own_decoding(), strict=True):
        drafter.read.clear()
        decoder = Decoder(drafter, rule, NoCache(), others=served)
        (outcome,) = decoder.decode([prompt])
        assert outcome.tokens == own
        first = drafter.read[0][0, len(prompt.tokens) :].tolist()
        rest = prompt.gen_length - 3
        assert first == [MASK] * 3 + [separator] * rest
        for tokens in drafter.read:
            answer = tokens[0, len(prompt.tokens) :].tolist()
            first = answer.index(MASK)
            assert answer == [
                *own[:first],
                *[MASK] * answer.count(MASK),
                *[separator] * (len(answer) - first - answer.count(MASK)),
            ]
            assert 1 <= answer.count(MASK) <= 3


@pytest.mark.parametrize("separator", [*range(2, 24, 3), 20, 22])
@pytest.mark.parametrize("drafter", ["random", "itself"])
def test_lossless_whatever_the_separator(drafter: str, separator: int) -> None:
    """An ordinary token, too: the verifier says it as ever."""
    rule = deer("draft_length=4", f"separator={separator}")
    outcomes = drafted(rule, PROMPTS, DRAFTERS[drafter], batch_size=4)
    assert tuple(outcome.tokens for outcome in outcomes) == own_decoding()


@pytest.mark.parametrize("separator", ["null", "22"])
@pytest.mark.parametrize("length", [2, 4])
def test_forwards_do_not_depend_on_the_batch(length: int, separator: str) -> None:
    """A sequence that has drafts left takes no part where others draft, as they come to do: this
    drafter is right now and then."""
    options = f"draft_length={length}", f"separator={separator}", "on_reject=continue"
    alone, beside = (
        [
            (one.cost.nfe, one.cost.rows, one.cost.steps, dict(one.cost.other_forwards))
            for one in drafted(deer(*options), PROMPTS, DRAFTERS["causal"], batch_size=size)
        ]
        for size in (1, 6)
    )
    assert alone == beside and len({nfe for nfe, *_ in alone}) > 1


def test_a_separator_that_the_drafter_lacks() -> None:
    """Only that of the toolkit's own drafters is none for the others."""
    tokenizer = load_tokenizer(EMBEDDED / "tiny-llada", "plain")
    assert deer().separator == SEPARATOR
    assert deer().with_tokenizer(tokenizer).separator is None
    with pytest.raises(ConfigError, match=r"^sampler.separator='\[SEP\]' is no token of this"):
        deer("separator='[SEP]'").with_tokenizer(tokenizer)
    ordinary = tokenizer.encode("7")[0]
    for separator in (ordinary, repr(tokenizer.base.convert_ids_to_tokens(ordinary))):
        with pytest.raises(ConfigError, match=r"is an ordinary token, which no draft could hold"):
            deer(f"separator={separator}").with_tokenizer(tokenizer)
    known = deer("separator='<|user|>'").with_tokenizer(tokenizer)
    assert known.separator == 2 and "hypotheses" in known.needs


def test_a_drafter_with_more_tokens() -> None:
    """What the verifier has no row for is never accepted."""
    drafter = random_model(replace(SPEC, vocab_size=40))
    rule = deer("draft_length=4")
    outcomes = drafted(rule, PROMPTS, drafter, batch_size=4, record=True)
    assert tuple(outcome.tokens for outcome in outcomes) == own_decoding()


def test_a_verifier_with_further_rows() -> None:
    """They are no tokens: it decodes as without them."""
    wide = random_model(replace(AUTOREGRESSIVE, vocab_size=40), seed=3)
    narrow = random_model(AUTOREGRESSIVE)
    weights = {
        name: weight[: SPEC.vocab_size] if name.startswith(("embed.", "head.")) else weight
        for name, weight in wide.state_dict().items()
    }
    narrow.load_state_dict(weights)
    rule = deer("draft_length=4")
    found, expected = (drafted(rule, PROMPTS, random_model(), one) for one in (wide, narrow))
    assert [one.tokens for one in found] == [one.tokens for one in expected]


SMALL = replace(SPEC, vocab_size=6)
PROMPT, LENGTH = (2, 3), 3


def small_model(spec: ModelSpec, seed: int) -> Transformer:
    return random_model(spec, seed).double()


@cache
def small_verifier() -> Transformer:
    return small_model(replace(SMALL, attention="causal", logit_shift=1), seed=3)


@cache
def joint() -> dict[tuple[int, ...], float]:
    """Probability of every answer under the verifier at temperature 1, masks excluded."""
    model = small_verifier()
    answers = list(itertools.product(range(1, SMALL.vocab_size), repeat=LENGTH))
    tokens = torch.tensor([PROMPT + answer for answer in answers])
    count = tokens.shape[1]
    rows = torch.arange(count).expand_as(tokens)
    causal = torch.ones(1, 1, count, count, dtype=torch.bool).tril()
    with torch.inference_mode():
        logits = model.logits(model.hidden(tokens, rows, causal, None))
        logits[..., MASK] = -torch.inf
    chosen = logits[:, len(PROMPT) - 1 : -1].log_softmax(-1)
    likely = chosen.gather(2, tokens[:, len(PROMPT) :, None]).sum(dim=(1, 2)).exp()
    assert likely.sum().item() == pytest.approx(1)
    return dict(zip(answers, likely.tolist(), strict=True))


def p_value(outcomes: list[Outcome]) -> float:
    """Chi-squared test of the answers against the verifier's; rare answers are one cell."""
    n, found = len(outcomes), Counter(outcome.tokens for outcome in outcomes)
    often = {answer: p for answer, p in joint().items() if n * p >= 5}
    cells = [(found[answer], n * p) for answer, p in often.items()]
    seen, expected = map(sum, zip(*cells, strict=True))
    if n - expected >= 5:
        cells.append((n - seen, n - expected))
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    half = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return torch.special.gammaincc(half[0], half[1]).item()


@cache
def small_drafter() -> Transformer:
    """Large weights: what it says of a token depends much on the one before."""
    model = small_model(SMALL, 0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and not name.startswith("embed"):
                weight.mul_(2)
    return model


def sampled(rule: Sampler, n: int) -> list[Outcome]:
    prompts = [Prompt(str(number), PROMPT, LENGTH) for number in range(n)]
    return drafted(rule, prompts, small_drafter(), small_verifier(), batch_size=500)


def sampling(*options: str) -> Deer:
    rule = sampler("sampler=deer", "sampler.region.block_length=null", SAMPLING, *options)
    assert isinstance(rule, Deer)
    return rule


@pytest.mark.parametrize(
    "options",
    [
        ["sampler.draft_length=2"],
        ["sampler.draft_length=3", "sampler.on_reject=continue"],
        ["sampler.draft_length=2", "sampler.draft=argmax", "sampler.bonus=false"],
    ],
    ids=["break", "continue", "argmax"],
)
def test_samples_are_the_verifier_s(options: list[str]) -> None:
    assert p_value(sampled(sampling(*options), 2000)) > 1e-3


def test_samples_of_a_drafter_with_more_tokens() -> None:
    prompts = [Prompt(str(number), PROMPT, LENGTH) for number in range(2000)]
    drafter = small_model(replace(SMALL, vocab_size=9), 0)
    rule = sampling("sampler.draft_length=2")
    assert p_value(drafted(rule, prompts, drafter, small_verifier(), batch_size=500)) > 1e-3


@dataclass(frozen=True, kw_only=True)
class FromTarget(Deer):
    """The replacement of a rejected draft drawn from p (the letter of Algorithm 1)."""

    def select(self, view: View, state: SamplerState):
        decision = super().select(view, state)
        rejected = decision.marks["rejected"]
        p: Tensor = self._probabilities(view, view.logits.clone()).nan_to_num(
            1.0
        )  # padding predicts nothing
        drawn = torch.multinomial(p.flatten(0, 1), 1, generator=torch.Generator().manual_seed(0))
        tokens = drawn.view_as(rejected).where(rejected, decision.tokens)
        return replace(decision, tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class AskedAgain(Deer):
    """The second draft verified by what the drafter says once the first one is in place (the
    project page's pseudo-code), not by what it was drawn from."""

    def observe(self, view: View, state: SamplerState) -> None:
        super().observe(view, state)
        if not self._drafts(view) or view.positions.shape[1] < 2:
            return
        tokens = view.canvas.tensor().clone()
        first, second = view.positions[:, :1], view.positions[:, 1:2]
        tokens.scatter_(1, first, state["draft"].gather(1, first))
        tokens = tokens[:, : view.canvas.width]
        model = small_drafter()
        hidden = model.hidden(tokens, torch.arange(tokens.shape[1]).expand_as(tokens))
        at = second.clamp(min=0)[..., None].expand(-1, -1, hidden.shape[2])
        logits = model.logits(hidden.gather(1, at))
        logits[..., MASK] = -torch.inf
        state["q"][:, 1:2] = logits.softmax(-1)


def with_options_of(rule: Deer, faulty: type[Deer]) -> Deer:
    names = (field.name for field in fields(rule) if field.init)
    return faulty(**{name: getattr(rule, name) for name in names})


@pytest.mark.parametrize(
    ("faulty", "n"),
    [(FromTarget, 2000), pytest.param(AskedAgain, 20_000, marks=pytest.mark.slow)],
)
def test_faulty_rules_are_caught(faulty: type[Deer], n: int) -> None:
    rule = with_options_of(sampling("sampler.draft_length=2"), faulty)
    assert p_value(sampled(rule, n)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("on_reject", ["break", "continue"])
@pytest.mark.parametrize("draft", ["sample", "argmax"])
def test_twenty_thousand_samples_are_the_verifier_s(
    length: int, on_reject: str, draft: str
) -> None:
    options = f"draft_length={length} on_reject={on_reject} draft={draft}".split()
    rule = sampling(*(f"sampler.{option}" for option in options))
    assert p_value(sampled(rule, 20_000)) > 1e-3


def test_verifiers_that_do_not_fit() -> None:
    for spec, words in (
        (replace(SPEC, attention="causal"), "must predict the next token under causal attention"),
        (replace(AUTOREGRESSIVE, logit_shift=0), "its attention is causal with a shift of 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            drafted(deer(), ragged_prompts(1), random_model(), random_model(spec))
    with pytest.raises(ConfigError, match="draft_length=0 must be >= 1"):
        deer("draft_length=0")


@pytest.mark.parametrize("separator", [-1, SPEC.vocab_size, MASK, 1])
def test_a_separator_is_a_token_that_no_answer_needs(separator: int) -> None:
    with pytest.raises(ConfigError, match=f"sampler.separator={separator} must be one of"):
        drafted(deer(f"separator={separator}"), PROMPTS[:1], random_model())

"""ETE (reconstruction): worked examples on exact distributions; what it is without its parts."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from constraining import Forbidding, Strict
from scripted import built
from tiny_decoding import SPEC, Spying, decode, ragged_prompts, random_model, sampler
from toy_model import FIRST, PROMPT, OraclePredictor, decoded, rounds, text

from dllm.cache.none import NoCache
from dllm.clock import NEVER
from dllm.config import build, compose
from dllm.engine.legality import refusals
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.hub import EMBEDDED
from dllm.models.loading import load_model
from dllm.models.tokenizers import load_tokenizer
from dllm.report.bits import SequenceBits
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.constraint import Accepted, Proposal, Verdict, Vetoes
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction, View
from dllm.step.sampler import Sampler
from dllm.step.trace import Step
from dllm.tasks.toy_oracle import ToyOracle


TOY_1 = ToyOracle(
    {
        first + value + "".join("klmnopqrstuv"["abc".index(value) * 4 + i] for i in range(4)): (
            0.85 ** first.count("x") * 0.15 ** first.count("y") * weight
        )
        for first in ("xxx", "xxy", "xyx", "xyy", "yxx", "yxy", "yyx", "yyy")
        for value, weight in {"a": 0.4, "b": 0.35, "c": 0.25}.items()
    }
)
"""Three independent positions, one with three values, and four that follow from it."""
TOY_2 = ToyOracle(
    {
        **{f"A{p}{r}{t}": 0.0625 for p in "pq" for r in "rs" for t in "tu"},
        "Bprt": 0.3,
        "Cqst": 0.1,
        "Cqsu": 0.1,
    }
)
UNCUT: dict[str, Any] = {"candidate_top_p": 0.999999, "candidate_ratio": 0.0}
"""All values that are possible at all."""


def ete(base: str = "threshold", block: int = 4, **options: Any) -> Sampler:
    given = [f"sampler.{name.replace('__', '.')}={value}" for name, value in options.items()]
    given = [option.replace("=None", "=null").replace("False", "false") for option in given]
    head = ["sampler=ete", f"sampler@sampler.base={base}"]
    return built(*head, f"sampler.base.region.block_length={block}", *given)


def run(oracle: ToyOracle, **options: Any) -> tuple[str, list[list[int]], int, float]:
    """Text, commits by round, canvases and bits of the path."""
    (outcome,) = decoded(ete(**UNCUT, **options), oracle)
    assert outcome.trace is not None and outcome.failure is None
    found = SequenceBits.of(outcome.trace, oracle.length, None)
    assert found.unknown == 0
    canvases = outcome.cost.nfe + outcome.cost.aux_forwards
    commits = [sorted(step.positions) for step in outcome.trace.steps]
    assert len(commits) == outcome.cost.nfe
    return text(oracle, outcome), commits, canvases, found.path_bits


def test_the_value_with_the_largest_cascade() -> None:
    answer, commits, canvases, bits = run(TOY_2, branches=3)
    assert (answer, commits, canvases) == ("Bprt", [[], [0, 1, 2, 3]], 4)
    assert bits == pytest.approx(1.737, abs=1e-3)


def test_a_single_candidate_is_not_compared() -> None:
    """The first choice, and no forward for the last one: nothing is left to predict."""
    answer, commits, canvases, bits = run(TOY_2, branches=1)
    assert (answer, commits, canvases) == ("Aprt", [[0], [1], [2], [3]], 4)
    assert bits == pytest.approx(4.0)


def test_the_surest_first_needs_more_rounds() -> None:
    (outcome,) = decoded(sampler("sampler=threshold"), TOY_2)
    assert text(TOY_2, outcome) == "Bprt"
    assert rounds(outcome) == [[3], [1], [2], [0]]


@pytest.mark.parametrize(
    ("threshold", "answer", "count", "canvases"), [(0.76, "ABCD", 2, 3), (0.70, "ABCD", 1, 1)]
)
def test_replace_random(threshold: float, answer: str, count: int, canvases: int) -> None:
    """Exploring finds the replaced item; it does not mend a threshold that is too low."""
    oracle = ToyOracle.replace_random(4)
    found = run(oracle, branches=2, base__threshold=threshold)
    assert (len(found[1]), found[2]) == (count, canvases)
    assert found[0] == ("FBCD" if count == 2 else answer)
    assert (found[0] in oracle.weights) == (count == 2)


def test_shuffle_has_no_cascade_before_its_last_item() -> None:
    oracle = ToyOracle.shuffle(4)
    answer, commits, canvases, _ = run(oracle)
    assert answer in oracle.weights
    assert (commits, canvases) == ([[], [0], [1], [2, 3]], 10)


def test_what_is_independent_gains_nothing() -> None:
    answer, commits, canvases, _ = run(TOY_1, branches=3)
    assert answer == "xxxaklmn"
    assert (commits, canvases) == ([[], [3, 4, 5, 6, 7], [0], [1], [2]], 10)
    answer, commits, canvases, _ = run(TOY_1, branches=3, base__threshold=0.8)
    assert (answer, commits, canvases) == ("xxxaklmn", [[0, 1, 2], [3, 4, 5, 6, 7]], 4)
    answer, commits, canvases, _ = run(TOY_1, branches=1, base__threshold=0.8)
    assert (answer, commits, canvases) == ("xxxaklmn", [[0, 1, 2, 3], [4, 5, 6, 7]], 2)


AS_ITS_BASE = {"branches": 1, "position": "max_conf", "trigger": "stuck", "ahead": 0}


def test_without_its_parts_it_is_the_threshold_on_a_toy() -> None:
    _, commits, _, bits = run(TOY_1, **AS_ITS_BASE)
    assert commits == [[0], [1], [2], [3], [4, 5, 6, 7]]
    assert bits == pytest.approx(2.0253, abs=1e-4)


def steps(outcome: Outcome) -> list[Step]:
    assert outcome.trace is not None
    return outcome.trace.steps


def commits_of(outcomes: dict[str, Outcome]) -> dict[str, list[list[tuple[int, int]]]]:
    return {name: one.trace.commits() for name, one in outcomes.items() if one.trace}


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("threshold", {"threshold": 0.3}),
        ("threshold", {"threshold": 0.9}),
        ("localleap", {"threshold": 0.6, "relaxed_threshold": 0.3}),
        ("factor", {"factor": 1.0, "last_rank_quirk": "false"}),
        ("credit", {"threshold": 0.5}),
    ],
)
def test_without_its_parts_it_is_its_base(
    base: str, options: dict[str, Any], batch_size: int
) -> None:
    """(i): the same tokens in the same rounds, on a real model."""
    plain = sampler(f"sampler={base}", *(f"sampler.{k}={v}" for k, v in options.items()))
    inner = {f"base__{name}": value for name, value in options.items()}
    reduced = ete(base, **AS_ITS_BASE, **inner)
    prompts, setting = ragged_prompts(24), {"record": True, "batch_size": batch_size}
    assert commits_of(decode(reduced, prompts, **setting)) == commits_of(
        decode(plain, prompts, **setting)
    )


def test_without_its_parts_it_is_the_threshold_on_any_words() -> None:
    """Whatever is asked, and though most positions are likely ends of the answer."""
    model = load_model(EMBEDDED / "tiny-llada")
    words = torch.randint(5, 800, (40, 6), generator=torch.Generator().manual_seed(1)).tolist()
    prompts = [Prompt(str(number), tuple(own), 16) for number, own in enumerate(words)]
    found, expected = (
        decode(rule, prompts, Predictor(model), record=True, eos=EosPolicy.CUT, batch_size=20)
        for rule in (
            ete(block=8, **AS_ITS_BASE),
            sampler("sampler=threshold", "sampler.region.block_length=8"),
        )
    )
    assert commits_of(found) == commits_of(expected)
    assert {name: one.tokens for name, one in found.items()} == {
        name: one.tokens for name, one in expected.items()
    }


def test_leftmost_without_exploiting_is_left_to_right() -> None:
    """(ii)."""
    options = {"branches": 1, "position": "leftmost", "base__threshold": 1.0}
    outcomes = decode(ete(**options), ragged_prompts(), record=True)
    for outcome in outcomes.values():
        assert rounds(outcome) == [[i] for i in range(len(outcome.tokens))]
    plain = decode(sampler("sampler=left_to_right"), ragged_prompts(), record=True)
    assert commits_of(outcomes) == commits_of(plain)


def test_one_uncertain_token_beside_the_sure_ones() -> None:
    """(iii): one branch, in every round."""
    options = {"branches": 1, "base__threshold": 0.5, "ahead": 0}
    outcomes = decode(ete(**options), ragged_prompts(), record=True)
    for outcome in outcomes.values():
        assert outcome.trace is not None and outcome.cost.aux_forwards == 0
        for step in outcome.trace.steps:
            sure = [p for p in step.probabilities if p is not None and p >= 0.5]
            explored = step.marks.get("explored", [])
            assert len(explored) <= 1
            assert set(step.positions) >= set(explored)
            assert len(step.positions) <= len(sure) + 1


def test_across_blocks_without_exploring() -> None:
    """(iv): the threshold in one block that is the whole answer."""
    plain = decode(
        sampler("sampler=threshold", "sampler.region.block_length=null", "sampler.threshold=0.5"),
        ragged_prompts(),
        record=True,
    )
    crossing = ete(trigger="never", base__threshold=0.5)
    found = decode(crossing, ragged_prompts(), record=True)
    assert commits_of(found) == commits_of(plain)
    assert any("forced" in step.marks for one in found.values() for step in steps(one))


def test_without_exploring_the_bound_is_the_base_s() -> None:
    plain = sampler("sampler=threshold", "sampler.threshold=0.5")
    assert ete(trigger="never", base__threshold=0.5).budget() == plain.budget() is not None
    assert ete(trigger="stuck", base__threshold=0.5).budget() is None


@pytest.mark.parametrize("cascade", ["count", "bits", "total_entropy"])
@pytest.mark.parametrize("base", ["threshold", "localleap", "factor", "credit"])
def test_rows_do_not_depend_on_their_batch(base: str, cascade: str) -> None:
    inner: dict[str, Any] = {"base__threshold": 0.4}
    if base == "factor":
        inner = {"base__last_rank_quirk": "false"}
    elif base == "localleap":
        inner = {"base__threshold": 0.6, "base__relaxed_threshold": 0.3}
    rule = ete(base, cascade=cascade, likelihood_weight=0.1, **inner)
    alone, beside = (
        decode(rule, ragged_prompts(), record=True, batch_size=size) for size in (1, 4)
    )
    assert commits_of(alone) == commits_of(beside)
    assert sum(one.cost.aux_forwards for one in alone.values()) > 0
    for name, one in alone.items():
        assert one.cost.aux_forwards == beside[name].cost.aux_forwards
        assert len(rounds(one)) <= one.cost.nfe <= len(one.tokens) + 1


@pytest.mark.parametrize(
    ("policy", "ahead"), [("none", None), ("none", 1), ("prefix", None), ("dual", 0)]
)
def test_with_caches(policy: str, ahead: int | None) -> None:
    cache = build(compose([f"cache={policy}"]).cache, "cache")
    rule = ete(base__threshold=0.5, ahead=ahead)
    decoder = Decoder(Predictor(random_model()), rule, cache, record=True, batch_size=3)
    reach = 0
    for outcome in decoder.decode(ragged_prompts()):
        assert outcome.failure is None and outcome.trace is not None
        end = 0
        for step in outcome.trace.steps:
            end = step.opened[1] if step.opened else end
            reach = max(reach, *(position - end for position in step.positions), 0)
    assert reach == {None: 7, 1: 3, 0: 0}[ahead]


def test_a_dual_cache_has_no_logits_ahead() -> None:
    cache = build(compose(["cache=dual"]).cache, "cache")
    (reason,) = refusals(ete(), cache, SPEC)
    assert reason.startswith("sampler=ETE reads positions behind the block in every step")
    assert not refusals(ete(ahead=0), cache, SPEC)


def test_cascades_are_in_the_trace() -> None:
    """Toy 2: A makes nothing sure, B three positions, C two; the second choice wins."""
    (outcome,) = decoded(ete(**UNCUT, branches=3), TOY_2)
    explored = [step.tried for step in steps(outcome)]
    values = {character: TOY_2.alphabet.index(character) for character in "ABC"}
    found = [(token, count) for token, count in explored[1]]
    ids = [token for token, _ in found]
    assert explored[0] == [] and [count for _, count in found] == [0, 3, 2]
    assert [token - ids[0] for token in ids] == [values[c] - values["A"] for c in "ABC"]
    assert steps(outcome)[1].marks["overruled"] == [0]


def test_exploring_after_a_refresh() -> None:
    """Toy 1 at 0.8: three tokens are sure at once; the fourth is chosen a round later, with them in
    view, and tried in the next."""
    options: dict[str, Any] = {"branches": 3, "base__threshold": 0.8}
    answer, commits, canvases, _ = run(TOY_1, **options, explore_after_refresh="true")
    assert answer == "xxxaklmn"
    assert (commits, canvases) == ([[0, 1, 2], [], [3, 4, 5, 6, 7]], 5)


@pytest.mark.parametrize("trigger", ["always", "stuck"])
def test_exploring_after_a_refresh_does_not_depend_on_the_batch(trigger: str) -> None:
    rule = ete(explore_after_refresh="true", trigger=trigger, min_exploit=3, base__threshold=0.5)
    alone, beside = (
        decode(rule, ragged_prompts(), record=True, batch_size=size) for size in (1, 4)
    )
    assert commits_of(alone) == commits_of(beside)
    for outcome in alone.values():
        assert outcome.failure is None
    looked = [step for one in alone.values() for step in steps(one) if not step.positions]
    assert looked


def test_values_drawn_without_replacement() -> None:
    """Two of three: pairs come as often as Gumbel top-2 says, whatever the batch."""
    rule = ete(branches=2, temperature=1.0, candidate_top_p=0.999999, candidate_ratio=0.0)
    prompts = 300
    outcomes = decoded(rule, TOY_2, count=prompts)
    firsts = [tuple(sorted(token for token, _ in steps(one)[1].tried)) for one in outcomes]
    pairs = {pair: firsts.count(pair) / prompts for pair in set(firsts)}
    assert all(len(pair) == 2 for pair in pairs)
    a, b, c = sorted({token for pair in pairs for token in pair})
    p = {a: 0.5, b: 0.3, c: 0.2}
    for x, y in ((a, b), (a, c), (b, c)):
        expected = p[x] * p[y] * (1 / (1 - p[x]) + 1 / (1 - p[y]))
        assert pairs[x, y] == pytest.approx(expected, abs=0.09)


def test_drawn_values_do_not_depend_on_the_batch() -> None:
    rule = ete(temperature=0.7, base__threshold=0.4)
    alone, beside = (
        decode(rule, ragged_prompts(), record=True, batch_size=size) for size in (1, 4)
    )
    assert commits_of(alone) == commits_of(beside)


class Small(Predictor):
    """Memory for two canvases."""

    error: RuntimeError = torch.OutOfMemoryError("no memory")

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        if len(plan.tokens) > 2:
            raise self.error
        return super().predict(plan, store)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["accelerator", "CPU"],
)
def test_fewer_branches_where_memory_is_short(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once; what fits is decoded."""
    monkeypatch.setattr(Small, "error", error)
    rule = ete(base__threshold=0.5, candidate_top_p=1.0, candidate_ratio=0.0)
    with pytest.warns(UserWarning, match="memory is short: 2 canvases per sequence") as said:
        found = decode(rule, ragged_prompts(4), Small(random_model()), record=True)
    assert len(said) == 1
    widths = {len(step.tried) for one in found.values() for step in steps(one)}
    assert max(widths) == 2
    assert not any(one.failure for one in found.values())


def test_another_error_is_not_taken_for_short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Small, "error", RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        decode(ete(base__threshold=0.5), ragged_prompts(4), Small(random_model()), batch_size=4)


def test_ends_are_neither_explored_nor_counted() -> None:
    found = decode(ete(base__threshold=0.5), ragged_prompts(), record=True)
    explored = {
        token
        for outcome in found.values()
        for step in steps(outcome)
        for position, token in zip(step.positions, step.tokens, strict=True)
        if position in step.marks.get("explored", [])
    }
    assert explored and 1 not in explored


def ending(end: str, **options: Any) -> tuple[list[Step], dict[int, str]]:
    """Steps of Toy 2 where one of its items ends the answer, and what its tokens stand for."""
    spelled = {FIRST + index: item for index, item in enumerate(TOY_2.alphabet)}
    (token,) = (token for token, item in spelled.items() if item == end)
    prompt = Prompt("0", PROMPT, TOY_2.length, stop_ids=(token,))
    rule = ete(position="leftmost", candidate_top_p=0.999999, **options)
    found = decode(rule, [prompt], OraclePredictor(TOY_2, SPEC), record=True)
    return steps(found["0"]), spelled


@pytest.mark.parametrize(
    ("end", "options", "tried"),
    [
        ("B", {}, {"A": 0, "C": 2}),
        ("B", {"allow_end": "true"}, {"A": 0, "B": 3, "C": 2}),
        ("t", {}, {"A": 0, "B": 2, "C": 2}),
        ("t", {"ignore_ends": "false"}, {"A": 0, "B": 3, "C": 2}),
    ],
)
def test_an_end_is_neither_tried_nor_counted(
    end: str, options: dict[str, Any], tried: dict[str, int]
) -> None:
    found, spelled = ending(end, **options)
    assert {spelled[token]: worth for token, worth in found[1].tried} == tried


def test_a_likely_end_is_not_explored() -> None:
    """The first item is most likely A: where that ends the answer, the next position is tried."""
    for options, item in (({}, "pq"), ({"allow_end": "true"}, "ABC")):
        found, spelled = ending("A", **options)
        assert {spelled[token] for token, _ in found[1].tried} == {*item}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "wino"}, "sampler.base=Wino does not say .*none that revokes tokens can"),
        ({"branches": 0}, "sampler.branches=0 must be >= 1"),
        ({"ahead": -1}, "sampler.ahead=-1 must be >= 0"),
        ({"candidate_top_p": 2}, r"sampler.candidate_top_p=2 is outside \[0, 1\]"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ete(**options)


def test_causal_blocks_have_nothing_ahead() -> None:
    spec = replace(SPEC, attention="block_causal", block_size=4)
    with pytest.raises(ConfigError, match=r"sampler.ahead=null: with block-causal attention"):
        ete().check_model(spec)
    ete(ahead=0).check_model(spec)


@pytest.mark.parametrize(
    ("top_p", "ratio", "tried"),
    [
        (0.999, 0.0, 3),
        (0.999, 0.35, 3),
        (0.999, 0.45, 2),  # C has 0.4 times the probability of A
        (0.999, 0.65, 0),  # one that is left is taken, not tried
        (0.85, 0.0, 3),
        (0.75, 0.0, 2),  # A and B hold 0.8: C comes behind the mass
        (0.45, 0.0, 0),
    ],
)
def test_which_values_are_tried(top_p: float, ratio: float, tried: int) -> None:
    """Toy 2's first item is A, B or C with 0.5, 0.3 and 0.2."""
    rule = ete(branches=4, position="leftmost", candidate_top_p=top_p, candidate_ratio=ratio)
    (outcome,) = decoded(rule, TOY_2)
    first, second, *_ = steps(outcome)
    assert first.positions == ([] if tried else [0])
    if tried:
        assert len(second.tried) == tried


@pytest.mark.parametrize(
    ("least", "expected"),
    [(3, [[0, 1, 2], [], [3, 4, 5, 6, 7]]), (4, [[0, 1, 2], [3, 4, 5, 6, 7]])],
)
def test_exploring_where_little_is_sure(least: int, expected: list[list[int]]) -> None:
    """Toy 1 at 0.8 is sure of three positions at once."""
    options = {"branches": 3, "base__threshold": 0.8, "trigger": "stuck", "min_exploit": least}
    answer, commits, _, _ = run(TOY_1, **options)
    assert (answer, commits) == ("xxxaklmn", expected)


class Grudging(Forbidding):
    """Refuses what is proposed, and says no more."""

    def review(self, view: View, proposal: Proposal) -> Verdict:
        pairs = tuple((c.position, c.token) for c in proposal.commits if c.token in self.tokens)
        return Vetoes(pairs) if pairs else Accepted()


@pytest.mark.parametrize("base", ["threshold", "credit"])
@pytest.mark.parametrize("options", [{}, {"explore_after_refresh": "true"}, {"trigger": "stuck"}])
def test_values_that_a_constraint_refuses(base: str, options: dict[str, Any]) -> None:
    """All that are tried may be: exploring goes on nevertheless, alone as in a batch."""
    rule = ete(base, branches=2, base__threshold=0.9, allow_end="true", **options)
    refused = set(range(1, SPEC.vocab_size - 3))
    alone, beside = (
        decode(rule, ragged_prompts(3), constraint=Grudging(refused), record=True, batch_size=size)
        for size in (1, 2)
    )
    assert commits_of(alone) == commits_of(beside)
    for outcome in alone.values():
        assert outcome.failure is None
        assert not {SPEC.mask_id, *refused} & set(outcome.tokens)
    tried = [
        step for one in alone.values() for step in steps(one) if step.review and step.review.refused
    ]
    assert tried


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("options", [{}, {"explore_after_refresh": "true"}, {"temperature": 1.0}])
def test_no_canvas_is_spent_on_what_a_constraint_refuses(
    options: dict[str, Any], cache: str
) -> None:
    """The model's first choices are refused: other values are tried, none of them in vain."""
    refused = set(range(1, SPEC.vocab_size - 6))
    more = {"ahead": 0, "base__threshold": 0.9, "candidate_ratio": 0.0, "candidate_top_p": 0.999}
    rule = ete(branches=3, allow_end="true", **more, **options)
    for prompt in ragged_prompts(4):
        prompt = replace(prompt, tokens=(2, 3, 4))
        strict, spy = Strict(refused, SPEC.vocab_size), Spying(random_model())
        policy = build(compose([f"cache={cache}"]).cache, "cache")
        decoder = Decoder(spy, rule, policy, constraint=strict, record=True)
        (outcome,) = decoder.decode([prompt])
        assert outcome.failure is None and not {SPEC.mask_id, *refused} & set(outcome.tokens)
        assert not any(refused & set(canvas.tolist()) - {2, 3, 4} for canvas in spy.fed)
        found = steps(outcome)
        explored = [step for step in found if step.tried]
        assert max(len(step.tried) for step in explored) > 1
        for step in explored:
            assert step.review is not None
            (at,) = step.marks["explored"][:1]
            assert at not in {position for position, _ in step.review.refused}
        assert outcome.cost.checks == 3 * len(explored) + len(strict.proposed)
        # What was tried comes first, what follows from it is checked on top.
        first = [step.tokens[step.positions.index(step.marks["explored"][0])] for step in explored]
        assert set(first) <= {tokens[0] for tokens in strict.proposed if tokens}


def test_branches_follow_a_grammar() -> None:
    """Every canvas that is fed can still become a sentence; the answer is one."""
    tokenizer = load_tokenizer(EMBEDDED / "tiny-llada", "plain")
    model = load_model(EMBEDDED / "tiny-llada")
    pattern = "(ab|ba|cab)+"
    bound = build(
        compose(["constraint=regex", f"constraint.pattern='{pattern}'"]).constraint, "constraint"
    ).bind(tokenizer, model.spec)
    rule = ete(branches=4, block=8, candidate_ratio=0.0, candidate_top_p=0.9999)
    spy, prompt = Spying(model), Prompt("one", tuple(tokenizer.chat("copy: Ada Bob")), 8)
    decoder = Decoder(spy, rule, NoCache(), constraint=bound, record=True, eos=EosPolicy.CUT)
    (outcome,) = decoder.decode([prompt])
    assert outcome.failure is None
    written = [token for token in outcome.tokens if token not in model.spec.eos_ids]
    assert re.fullmatch(pattern, tokenizer.decode(written))
    tried = [step for step in steps(outcome) if len(step.tried) > 1]
    assert tried
    for step in tried:
        assert step.review is not None
        assert step.marks["explored"][0] not in {position for position, _ in step.review.refused}
    start, length = len(prompt.tokens), len(prompt.tokens) + 8
    canvas = Canvas.empty(length, model.spec.mask_id, model.spec.eos_ids)
    canvas.append(prompt, Layout(length, length, length, 0), torch.Generator())
    checker = bound.enter(canvas, 0).checker
    assert len(spy.fed) == outcome.cost.nfe + outcome.cost.aux_forwards
    assert all(checker.fits(fed[start:], NEVER) for fed in spy.fed)

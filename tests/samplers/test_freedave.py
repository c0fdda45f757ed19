"""Worked examples of FreeDave, its losslessness, and what it refuses."""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from constraining import Forbidding, Strict
from scripted import built
from tiny_decoding import SPEC, Spying, canvas_of, decode, ragged_prompts, random_model, sampler
from torch import Tensor
from written import PROMPT, Cell, step_of

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError, RunError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.loading import load_model
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from samplers.freedave import FreeDave
from samplers.parts.verifiers import Verifier


GOLDEN = Path(__file__).parents[1] / "golden" / "models"
CONF: list[Cell] = [0.95, 0.70, 0.92, 0.40, 0.60]


def freedave(base: str, drafts: int, *options: str, block: int = 8) -> FreeDave:
    rule = built(
        "sampler=freedave",
        f"sampler@sampler.base={base}",
        f"sampler.draft_steps={drafts}",
        f"sampler.base.region.block_length={block}",
        *options,
    )
    assert isinstance(rule, FreeDave)
    return rule


def drafts_of(rule: FreeDave, row: list[Cell]) -> list[set[int]]:
    """Decided positions of each canvas of the first verification."""
    step = step_of(rule, row)
    decision = step.decide()
    for name, value in decision.updates.items():
        step.state[name] = value
    step.canvas.tokens[0, step.view.positions[0][decision.commit[0]]] = 9
    step.canvas.step_in_block[:] = 1
    request = rule.plan(step.canvas, step.canvas.masked(), step.state)
    assert request.branches is not None
    canvases = [*request.branches[0]]
    length = len(PROMPT) + len(row)
    return [
        {p - 3 for p in range(3, length) if canvas[p] != step.canvas.mask_id} for canvas in canvases
    ]


@pytest.mark.parametrize(
    ("base", "options", "expected"),
    [
        ("low_confidence", (), [{0}, {0, 2}, {0, 1, 2}]),
        ("left_to_right", (), [{0}, {0, 1}, {0, 1, 2}]),
        ("threshold", ("threshold=0.9",), [{0, 2}, {0, 1, 2}, {0, 1, 2, 4}]),
        ("threshold", ("threshold=0.99",), [{0}, {0, 2}, {0, 1, 2}]),
    ],
)
def test_drafts(base: str, options: tuple[str, ...], expected: list[set[int]]) -> None:
    rule = freedave(base, 3, *(f"sampler.base.{o}" for o in options), block=5)
    assert drafts_of(rule, CONF) == expected


def test_left_to_right_run_stops_at_the_first_unsure_position() -> None:
    step = step_of(built("sampler=left_to_right", "sampler.threshold=0.9"), CONF)
    assert step.decide().commit.tolist() == [[True, False, False, False, False]]


M = 0
D = [[1, M, M, M], [1, M, 3, M], [1, 2, 3, M]]


@pytest.mark.parametrize(
    ("first", "second", "exact", "subset"),
    [
        ([1, M, 3, M], [1, 2, 3, M], 3, 3),
        ([1, M, 3, M], [1, M, 3, 9], 2, 2),
        ([1, 5, M, M], [1, 2, 3, M], 1, 1),
        ([1, M, 8, M], [1, 2, 3, M], 1, 1),
        ([1, 2, 3, 9], [1, 2, 3, M], 1, 3),
    ],
)
def test_verification(first: list[int], second: list[int], exact: int, subset: int) -> None:
    targets = torch.tensor([[first, second, [1, 2, 3, 4]]])
    for match, accepted in (("exact", exact), ("subset", subset)):
        verifier = Verifier(match=match, max_batch=None)  # type: ignore[arg-type]
        assert verifier.longest_chain(torch.tensor([D]), targets, M).tolist() == [accepted - 1]


@dataclass
class Toy:
    """A closed-form model: six tokens, the mask is the seventh."""

    epsilon: float
    phase: float = 0.5
    spec: Any = field(
        default_factory=lambda: replace(SPEC, vocab_size=7, mask_id=6, eos_ids=(5,), pad_id=5)
    )
    model: Any = field(
        default_factory=lambda: SimpleNamespace(device=torch.device("cpu"), dtype=torch.float64)
    )

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        wanted = plan.logits_for
        assert wanted is not None
        logits = torch.zeros(*wanted.shape, 7, dtype=torch.float64)
        for entry, row in (wanted >= 0).nonzero().tolist():
            p = int(wanted[entry, row])
            logits[entry, row] = self._logits(p, plan.tokens[entry])
        return Prediction(logits, None)

    def _logits(self, p: int, tokens: Tensor) -> Tensor:
        s = sum((q + 1) * (t + 2) for q, t in enumerate(tokens.tolist()) if t != 6)
        values = [
            2.5 * math.cos(1.7 * p + 2.3 * v + self.phase)
            + self.epsilon * math.sin(0.37 * s + 1.3 * p + 0.9 * v)
            for v in range(6)
        ]
        return torch.tensor([*values, -math.inf], dtype=torch.float64)


def toy(rule: Sampler, model: Toy, length: int = 8) -> Outcome:
    decoder = Decoder(model, rule, NoCache(), record=True)  # type: ignore[arg-type]
    return next(decoder.decode([Prompt("toy", (1, 2, 3), length)]))


@pytest.mark.parametrize(
    ("epsilon", "output", "nfe"),
    [(0.3, (3, 5, 4, 1, 0, 2, 4, 3), 5), (0.6, (3, 2, 4, 1, 3, 2, 4, 1), 6)],
)
def test_toy_model(epsilon: float, output: tuple[int, ...], nfe: int) -> None:
    static = built("sampler=low_confidence", "sampler.region.block_length=8")
    assert toy(static, Toy(epsilon)).tokens == output
    outcome = toy(freedave("low_confidence", 4), Toy(epsilon))
    assert outcome.tokens == output
    assert outcome.cost.nfe == nfe


def test_order_of_the_toy_model() -> None:
    static = built("sampler=low_confidence", "sampler.region.block_length=8")
    trace = toy(static, Toy(0.3)).trace
    assert trace is not None
    assert [step.positions for step in trace.steps] == [[2], [6], [0], [5], [1], [7], [3], [4]]
    drafted = toy(freedave("low_confidence", 4), Toy(0.3)).trace
    assert drafted is not None
    # Accepted drafts per round, the certain position of each round among them: 2, 1, 1, 3, then
    # the last.
    rounds = [len(step.marks.get("drafted", [])) + 1 for step in drafted.steps[1:]]
    assert rounds == [2, 1, 1, 3]


@pytest.mark.parametrize("base", ["low_confidence", "threshold", "left_to_right"])
@pytest.mark.parametrize("drafts", [2, 8])
def test_lossless_on_toys(base: str, drafts: int) -> None:
    plain = built(f"sampler={base}", "sampler.region.block_length=8")
    for number in range(4):
        model = Toy(0.6, phase=number * 0.7)
        one, other = toy(plain, model, 16), toy(freedave(base, drafts), model, 16)
        assert one.tokens == other.tokens
        assert other.cost.nfe <= one.cost.nfe


class ProposingMasks(Predictor):
    """The mask token comes first at some positions, second at others, as the canvas is."""

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        prediction = super().predict(plan, store)
        assert prediction is not None
        others = prediction.logits[..., SPEC.mask_id + 1 :]
        margin = torch.sin(1000 * others.sum(dim=-1))
        prediction.logits[..., SPEC.mask_id] = others.amax(dim=-1) + margin
        return prediction


@pytest.mark.parametrize("base", ["low_confidence", "threshold"])
def test_lossless_where_the_model_proposes_masks(base: str) -> None:
    """The mask token gives way on a draft's canvas exactly where it does on the sequence's own."""
    predictor, prompts = ProposingMasks(random_model(seed=2)), ragged_prompts(18)
    static = decode(built(f"sampler={base}", "sampler.region.block_length=4"), prompts, predictor)
    found = decode(freedave(base, 4, block=4), prompts, predictor)
    for name, one in static.items():
        assert found[name].tokens == one.tokens
        assert found[name].cost.nfe <= one.cost.nfe


def _decoded(
    rule: Sampler, folder: str, cache: str, prompts: list[Prompt], batch: int, *options: str
) -> dict[str, Outcome]:
    model = load_model(GOLDEN / folder, torch.float64)
    policy = build(compose([f"cache={cache}", *options]).cache, "cache")
    decoder = Decoder(Predictor(model), rule, policy, batch_size=batch)
    return {outcome.sample_id: outcome for outcome in decoder.decode(prompts)}


def _prompts(count: int, length: int = 16) -> list[Prompt]:
    generator = torch.Generator().manual_seed(3)
    sizes = torch.randint(4, 16, (count,), generator=generator).tolist()
    return [
        Prompt(str(i), tuple(torch.randint(3, 72, (n,), generator=generator).tolist()), length)
        for i, n in enumerate(sizes)
    ]


LOSSLESS = [
    ("tiny-llada", "dual", "low_confidence", ()),
    ("tiny-llada", "prefix", "threshold", ()),
    ("tiny-llada", "none", "localleap", ()),
    ("tiny-dream-trace", "dual", "opening", ("cache.shifted_rows=own",)),
]


def _check_lossless(
    count: int, drafts: int, folder: str, cache: str, base: str, options: tuple[str, ...]
) -> None:
    at = "sampler.base.base" if base == "opening" else "sampler.base"
    rule = built(
        "sampler=freedave",
        f"sampler@sampler.base={base}",
        f"{at}.region.block_length=8",
        f"sampler.draft_steps={drafts}",
    )
    assert isinstance(rule, FreeDave)
    prompts = _prompts(count)
    static = _decoded(rule.base, folder, cache, prompts, 20, *options)
    found = _decoded(rule, folder, cache, prompts, 20, *options)
    for prompt in prompts:
        one, other = static[prompt.sample_id], found[prompt.sample_id]
        assert one.tokens == other.tokens
        assert other.cost.nfe <= one.cost.nfe


@pytest.mark.parametrize(("folder", "cache", "base", "options"), LOSSLESS)
def test_lossless(folder: str, cache: str, base: str, options: tuple[str, ...]) -> None:
    _check_lossless(6, 4, folder, cache, base, options)


@pytest.mark.slow
@pytest.mark.parametrize("drafts", [2, 4, 8])
@pytest.mark.parametrize(("folder", "cache", "base", "options"), LOSSLESS)
def test_lossless_on_500_prompts(
    drafts: int, folder: str, cache: str, base: str, options: tuple[str, ...]
) -> None:
    _check_lossless(500, drafts, folder, cache, base, options)


def _eager(eager: bool) -> Sampler:
    return built(
        "sampler=freedave",
        "sampler@sampler.base=sdar",
        "sampler.base.mode=static",
        f"sampler.eager={str(eager).lower()}",
        "sampler.draft_steps=8",
    )


@pytest.mark.parametrize("eager", [False, True])
def test_lossless_with_blocks(eager: bool) -> None:
    rule, prompts = _eager(eager), _prompts(6)
    assert isinstance(rule, FreeDave)
    static = _decoded(rule.base, "tiny-sdar-trace", "block", prompts, 3)
    found = _decoded(rule, "tiny-sdar-trace", "block", prompts, 3)
    for name, one in static.items():
        assert one.tokens == found[name].tokens
        assert found[name].cost.nfe <= one.cost.nfe


@pytest.mark.parametrize(
    ("eager", "order"), [(False, [8, 10, 11, 9, 5, 7, 6]), (True, [5, 7, 6, 4, 8, 10, 11])]
)
def test_an_eager_draft_completes_a_block_before_the_next(eager: bool, order: list[int]) -> None:
    """Within a block the surest position is first."""
    rule = _eager(eager)
    canvas = canvas_of([0] * 8, prompt=(5, 6, 7, 8))
    canvas.attention_block[:] = 4
    canvas.enter_block(0, 4, 12)
    canvas.step_in_block[:] = 1
    state = SamplerState(rule.fields(), canvas.capacity, "cpu")
    state.append()
    state["draft_token"][:] = 9
    state["draft_score"][0, 4:] = torch.tensor([0.2, 0.5, 0.3, 0.4, 0.9, 0.6, 0.8, 0.7])
    branches = rule.plan(canvas, canvas.masked(), state).branches
    assert branches is not None
    decided = [set((canvas != 0).nonzero()[0].tolist()) for canvas in branches[0]]
    assert [min(after - before) for before, after in pairwise(decided)] == order


def test_eager_needs_causal_blocks() -> None:
    with pytest.raises(ConfigError, match="eager=true needs block-causal attention"):
        freedave("low_confidence", 4, "sampler.eager=true").check_model(SPEC)


def test_rules_that_drafts_can_not_follow() -> None:
    with pytest.raises(ConfigError, match="remembers earlier steps"):
        built("sampler=freedave", "sampler@sampler.base=klass")
    with pytest.raises(ConfigError, match="draws at random: use greedy"):
        built("sampler=freedave", "sampler/proposer@sampler.base.proposer=gumbel")
    with pytest.raises(ConfigError, match=r"base.steps=4 must be gen_length=8"):
        freedave("low_confidence", 4, "sampler.base.steps=4").validate(8)


def test_fewer_drafts_than_asked_for_are_said() -> None:
    verifier = Verifier(match="exact", max_batch=6)
    with pytest.warns(UserWarning, match="max_batch=6: 3 canvases per sequence .* draft_steps=4"):
        assert verifier.drafts(4, batch=2) == 2
    assert verifier.drafts(4, batch=1) == 3
    with pytest.raises(ConfigError, match="max_batch=0 must be >= 1"):
        Verifier(match="exact", max_batch=0)


class Short(Predictor):
    """Has memory for a few canvases only."""

    canvases = 3

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        if len(plan.slots) > self.canvases:
            raise torch.OutOfMemoryError("no memory")
        return super().predict(plan, store)


def test_fewer_drafts_where_memory_is_short() -> None:
    prompt, model = Prompt("one", PROMPT, 8), random_model()
    plenty = next(
        Decoder(Predictor(model), freedave("low_confidence", 6), NoCache()).decode([prompt])
    )
    with pytest.warns(UserWarning, match="memory is short: 3 canvases per sequence instead of 6"):
        decoder = Decoder(Short(model), freedave("low_confidence", 6), NoCache())
        short = next(decoder.decode([prompt]))
    assert short.tokens == plenty.tokens
    guided = built(
        "sampler=low_confidence", "sampler.region.block_length=8", "sampler.cfg_scale=1.0"
    )
    decoder = Decoder(Short(model), guided, NoCache(), batch_size=2)
    with pytest.raises(RunError, match="batch_size=2: out of memory in a forward of 4 x 11 rows"):
        list(decoder.decode([prompt, replace(prompt, sample_id="two")]))


def test_constraints_reach_every_branch() -> None:
    static = built("sampler=low_confidence", "sampler.region.block_length=8")
    free = freedave("low_confidence", 4)
    predictor = Predictor(random_model())
    for number in range(4):
        prompt = Prompt(str(number), (5, 6, 7 + number), 8)
        plain, drafted = (
            next(Decoder(predictor, rule, NoCache(), constraint=Forbidding({5})).decode([prompt]))
            for rule in (static, free)
        )
        assert 5 not in drafted.tokens
        assert len(drafted.tokens) == len(plain.tokens)


@pytest.mark.parametrize("base", ["low_confidence", "threshold"])
def test_no_draft_is_computed_that_a_constraint_refuses(base: str) -> None:
    """Tokens and order are those of the rule under the same constraint."""
    refused = set(range(1, SPEC.vocab_size - 12))
    options = [f"sampler.{'base.' if of else ''}region.block_length=4" for of in (False, True)]
    plain = sampler(f"sampler={base}", options[0])
    rule = built("sampler=freedave", f"sampler@sampler.base={base}", options[1])
    drafts = 0
    for prompt in ragged_prompts(6):
        prompt = replace(prompt, tokens=(2, 3, 4))
        strict, spy = Strict(refused, SPEC.vocab_size), Spying(random_model())
        ours = decode(rule, [prompt], spy, constraint=strict, record=True)[prompt.sample_id]
        theirs = decode(plain, [prompt], constraint=Forbidding(refused), record=True)
        other = theirs[prompt.sample_id]
        assert ours.tokens == other.tokens and ours.cost.nfe <= other.cost.nfe
        assert not any(refused & set(canvas.tolist()) - {2, 3, 4} for canvas in spy.fed)
        drafts += ours.cost.aux_forwards
    assert drafts > 0

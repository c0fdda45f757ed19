"""DiffusionGemma's decoding: to the token as transformers generates, and its rule by itself."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from constraining import Watching
from gemma_checkpoint import BLOCK, gemma_rule, stock, write_checkpoint
from tiny_checkpoints import tiny_model
from transformers.models.diffusion_gemma import generation_diffusion_gemma as official

from dllm.cache.encoder import EncoderCache
from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.loading import load_model
from dllm.models.spec import NO_MASK
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.decision import Decision, to_host
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.plan import ForwardKind
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark for compiled models, which imports the compiler: 10 s."""
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)


def prompts() -> list[Prompt]:
    """One, two and three blocks, prompts shorter and longer than the sliding window."""
    generator = torch.Generator().manual_seed(3)
    return [
        Prompt(f"s{i}", tuple(torch.randint(10, 60, (n,), generator=generator).tolist()), length)
        for i, (n, length) in enumerate([(3, 3 * BLOCK), (11, BLOCK + 1), (6, 5)])
    ]


def expected(folder: Path, prompt: Prompt, ends: list[int] | None, **options: Any) -> Any:
    """transformers' own answer and its forwards, drawn from the sequence's seed."""
    digest = hashlib.sha256(f"0/{prompt.sample_id}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "big"))
    config = official.DiffusionGemmaGenerationConfig(
        max_new_tokens=prompt.gen_length, pad_token_id=0, **options
    )
    model = stock(folder)
    model.generation_config.eos_token_id = ends
    found = model.generate(torch.tensor([prompt.tokens]), generation_config=config)
    answer = found.sequences[0, len(prompt.tokens) :]
    # It counts without padding.
    forwards = (answer != 0).sum() / found.tokens_per_forward[0]
    return answer.tolist(), round(float(forwards))


def decoded(
    folder: Path, rule: Sampler, cache: Any, eos: EosPolicy = EosPolicy.NONE
) -> dict[str, Outcome]:
    """All prompts together."""
    predictor = Predictor(load_model(folder))
    decoder = Decoder(predictor, rule, cache, eos, batch_size=3, record=True)
    return {outcome.sample_id: outcome for outcome in decoder.decode(prompts())}


BOUND = official.EntropyBoundSamplerConfig
CASES = {
    "few accepted, all steps": (
        [],
        {},
    ),
    "many accepted, early stop": (
        ["entropy_bound=3.0", "stability_threshold=1", "confidence_threshold=1.0"],
        {
            "sampler_config": BOUND(3.0),
            "stability_threshold": 1,
            "confidence_threshold": 1.0,
        },
    ),
    "two stable steps, other temperatures": (
        [
            "entropy_bound=5.0",
            "stability_threshold=2",
            "confidence_threshold=1.5",
            "t_max=1.0",
            "t_min=0.2",
        ],
        {
            "sampler_config": BOUND(5.0),
            "stability_threshold": 2,
            "confidence_threshold": 1.5,
            "t_max": 1.0,
            "t_min": 0.2,
        },
    ),
    "confident alone": (
        ["entropy_bound=8.0", "stability_threshold=0", "confidence_threshold=1.2"],
        {"sampler_config": BOUND(8.0), "stability_threshold": 0, "confidence_threshold": 1.2},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cache", [NoCache, EncoderCache])
def test_tokens_and_forwards_of_the_official_generation(
    folder: Path, case: str, cache: type
) -> None:
    ours, theirs = CASES[case]
    options = [f"sampler.{option}" for option in (f"max_denoising_steps={STEPS}", *ours)]
    outcomes = decoded(folder, gemma_rule(*options), cache())
    counts = []
    for prompt in prompts():
        outcome = outcomes[prompt.sample_id]
        answer, forwards = expected(folder, prompt, None, max_denoising_steps=STEPS, **theirs)
        assert outcome.failure is None
        assert list(outcome.tokens) == answer
        assert outcome.cost.forwards[ForwardKind.STEP] == forwards
        counts.append(forwards)
    # The early stop is met, and not by all.
    blocks = [3, 2, 1]
    full = [STEPS * count for count in blocks]
    assert (counts == full) == (case == "few accepted, all steps")


def test_an_end_token_ends_the_answer_as_officially(folder: Path) -> None:
    """What it pads behind the end is cut off here."""
    options = {"max_denoising_steps": STEPS, "sampler_config": BOUND(3.0)}
    rule = gemma_rule(f"sampler.max_denoising_steps={STEPS}", "sampler.entropy_bound=3.0")
    free = decoded(folder, rule, EncoderCache())["s0"].tokens
    end = free[BLOCK // 2]  # now in the first of three blocks
    predictor = Predictor(load_model(folder))
    predictor.spec = replace(predictor.spec, eos_ids=(end,))
    decoder = Decoder(predictor, rule, EncoderCache(), EosPolicy.CUT_AFTER_BLOCK)
    (outcome,) = decoder.decode(prompts()[:1])
    answer, forwards = expected(folder, prompts()[0], [end], **options)
    assert len(answer) == BLOCK and outcome.tokens[-1] == end
    assert answer == [*outcome.tokens, *[0] * (BLOCK - len(outcome.tokens))]
    assert outcome.cost.forwards[ForwardKind.STEP] == forwards == STEPS


@pytest.fixture
def view() -> View:
    """Two sequences on their first block, whose logits are sure at some positions."""
    canvas = Canvas.empty(8, NO_MASK, (1,), noise_tokens=5)
    for row in range(2):
        layout = Layout(6, 6, 6, 4)
        canvas.append(Prompt(str(row), (2, 3), 4), layout, torch.Generator().manual_seed(row))
        canvas.enter_block(row, 2, 6)
    logits = torch.zeros(2, 4, 5)
    logits[0, [0, 2], [4, 3]] = 100.0
    logits[1, :, 1] = 100.0
    positions = torch.arange(2, 6).repeat(2, 1)
    return View(canvas, positions, logits, torch.ones(2, 4, dtype=torch.bool))


def state_of(rule: Sampler, view: View) -> SamplerState:
    state = SamplerState(rule.fields(), view.canvas.capacity, "cpu")
    for _ in view.canvas.prompts:
        state.append()
    return state


def apply(view: View, decision: Decision, state: SamplerState) -> None:
    guard = to_host(decision, view.positions.numpy(), view.candidates, False, None)
    view.canvas.apply(guard)
    for name, value in decision.updates.items():
        state[name] = value


def test_accepted_tokens_stay_and_the_others_are_random_again(view: View) -> None:
    rule = gemma_rule("sampler.entropy_bound=0.01")
    before = view.canvas.noise.copy()
    decision = rule.select(view, state_of(rule, view))
    # Sure positions, and the first one of those that are not: nothing uncertain precedes it.
    assert decision.marks["accepted"].tolist() == [[True, True, True, False], [True] * 4]
    assert decision.noise[0, [0, 2]].tolist() == [4, 3] and decision.noise[1].tolist() == [1] * 4
    assert not decision.commit.any()
    apply(view, decision, state_of(rule, view))
    canvas = view.canvas
    assert canvas.masked()[:, 2:6].all() and (canvas.tokens[:, 2:6] == NO_MASK).all()
    assert (canvas.noise[:, 2:6] == decision.noise.numpy()).all() and (before != canvas.noise).any()
    # The model reads the noise; the canvas itself still says that nothing is decided.
    read = canvas.in_terms_of(tiny_model("diffusion_gemma").spec)
    assert (read.tokens[:, 2:6] == canvas.noise[:, 2:6]).all()
    assert (read.tokens[:, :2] == (2, 3)).all()


def test_a_block_ends_once_it_is_stable_and_confident(view: View) -> None:
    options = ["stability_threshold=2", "confidence_threshold=0.1", "max_denoising_steps=5"]
    rule = gemma_rule(*(f"sampler.{option}" for option in options))
    state = state_of(rule, view)
    ended = []
    for _ in range(5):
        decision = rule.select(view, state)
        again = rule.select(view, state)
        assert again.commit.equal(decision.commit)
        ended.append(decision.commit.all(dim=1).tolist())
        apply(view, decision, state)
    # The second is sure all along, the first never: it takes all steps.
    assert ended[:2] == [[False, False]] * 2
    assert [row for row, _ in ended] == [False] * 4 + [True]
    assert [row for _, row in ended][2:] == [True] * 3


def test_temperature_falls_with_the_steps_and_may_be_left_out(view: View) -> None:
    rule = gemma_rule("sampler.max_denoising_steps=4", "sampler.t_max=2.0", "sampler.t_min=1.0")
    state = state_of(rule, view)
    assert (view.logits / rule.transform(view, state).logits)[0, 0, 4] == 2.0
    view.canvas.step_in_block += 3
    assert (view.logits / rule.transform(view, state).logits)[0, 0, 4] == 1.25
    assert gemma_rule("sampler.t_min=null").transform(view, state) is view


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("max_denoising_steps=0", "must be >= 1"),
        ("entropy_bound=0", "must be > 0"),
        ("confidence_threshold=-1", "must be > 0"),
        ("stability_threshold=-1", "must be >= 0"),
        ("t_min=-0.1", "must be >= 0"),
        ("t_max=0.4", "must be above"),
    ],
)
def test_options(option: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"sampler.{option.split('=')[0]}=.* {told}"):
        gemma_rule(f"sampler.{option}")


@pytest.mark.parametrize("region", ["aligned", "uneven", "streaming"])
def test_blocks_of_several_lengths_are_refused(region: str) -> None:
    with pytest.raises(ConfigError, match=r"sampler.region=\w+ is not of type WholeBlocks"):
        gemma_rule(f"sampler/region={region}")


def test_a_constraint_is_refused(folder: Path) -> None:
    predictor = Predictor(load_model(folder))
    decoder = Decoder(predictor, gemma_rule(), NoCache(), constraint=Watching(set()))
    with pytest.raises(ConfigError, match=r"a constraint needs a mask token, .* constraint=none"):
        decoder.check_parts()

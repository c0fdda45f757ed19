"""Worked examples of Learn2PD, EoTP and the oracle, and what a filter
refuses."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted import Script, built, distribution
from tiny_decoding import EOS, MASK, SPEC, canvas_of, decode, ragged_prompts, random_model
from written import PROMPT, Cell, Twin, offsets, step_of

from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.filter import (
    FilterFacts,
    FilterNetwork,
    convert_torch_filter,
    effective_threshold,
    load_filter,
    model_signature,
    published_differences,
    save_filter,
)
from dllm.step.canvas import Prompt
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


def network(neighbour: float = 0.0, bias: float = -5.0, **facts: object) -> FilterNetwork:
    """z_i = 10 c_i + neighbour c_(i-1) + bias over blocks of four."""
    made = FilterNetwork(FilterFacts(block_length=4, **facts))  # type: ignore[arg-type]
    eye = torch.eye(4)
    made.load_state_dict(
        {
            "linear1.weight": eye,
            "linear1.bias": torch.zeros(4),
            "linear2.weight": 10 * eye + neighbour * eye.roll(1, 0).tril(),
            "linear2.bias": torch.full((4,), bias),
        }
    )
    return made


@pytest.fixture
def diag(tmp_path: Path) -> str:
    save_filter(network(), tmp_path / "diag.safetensors")
    return str(tmp_path / "diag.safetensors")


@pytest.fixture
def nb(tmp_path: Path) -> str:
    save_filter(network(3.0, -7.0), tmp_path / "nb.safetensors")
    return str(tmp_path / "nb.safetensors")


def learn2pd(path: str, *options: str) -> Sampler:
    named = [f"sampler.filter={path}", "sampler.region.block_length=4"]
    return built("sampler=learn2pd", *named, *options)


def accepted_and_committed(
    path: str, row: list[Cell], narrow: str = "refuse"
) -> tuple[set[int], set[int]]:
    step = step_of(learn2pd(path, f"sampler.narrow_blocks={narrow}"), row)
    step.canvas.prompts[0] = replace(step.canvas.prompts[0], gen_length=4)
    decision = step.decide()
    return (
        offsets(decision.marks["accepted"], step.view)[0],
        offsets(decision.commit, step.view)[0],
    )


def test_filter_without_neighbours(diag: str) -> None:
    assert accepted_and_committed(diag, [0.90, 0.50, 0.85, 0.30]) == ({0, 2}, {0, 2})
    assert accepted_and_committed(diag, [0.50, 0.60, 0.40, 0.30]) == (set(), {1})
    assert accepted_and_committed(diag, [Twin(0.99), 0.80, 0.82, 0.30]) == ({2}, {2})
    assert accepted_and_committed(diag, [Twin(0.99), 0.81, 0.817, 0.8179]) == ({3}, {3})


def test_acceptance_is_strict(tmp_path: Path) -> None:
    """A filter whose every answer is one half."""
    half = network(bias=0.0)
    torch.nn.init.zeros_(half.linear2.weight)
    save_filter(half, tmp_path / "half.safetensors")
    for threshold, accepted in ((0.5, set()), (0.4999, {0, 1, 2, 3})):
        rule = learn2pd(str(tmp_path / "half.safetensors"), f"sampler.accept_threshold={threshold}")
        step = step_of(rule, [0.9, 0.5, 0.8, 0.3])
        assert offsets(step.decide().marks["accepted"], step.view)[0] == accepted


def test_filter_sees_the_confidence_of_decided_neighbours(nb: str) -> None:
    assert accepted_and_committed(nb, [Twin(0.99), 0.75, 0.60, 0.90]) == ({1, 3}, {1, 3})


def test_a_block_cut_short_is_padded(nb: str) -> None:
    assert accepted_and_committed(nb, [0.90, 0.85, 0.20], narrow="pad") == ({1}, {0, 1})


def test_probabilities_of_the_filter() -> None:
    c = torch.tensor([[0.99, 0.75, 0.60, 0.90]])
    expected = [0.9478, 0.9698, 0.7773, 0.9781]
    assert network(3.0, -7.0)(c).sigmoid()[0].tolist() == pytest.approx(expected, abs=1e-4)
    padded = network(3.0, -7.0)(torch.tensor([[0.90, 0.85, 0.20]])).sigmoid()
    assert padded[0].tolist() == pytest.approx([0.8808, 0.9852, 0.0794], abs=1e-4)


def cut_view(rule: Sampler, sure: list[float]) -> tuple[View, SamplerState]:
    """Two blocks of four, all masked, the first one current; a b EoT c | EoT EoT d EoT."""
    tokens = [10, 11, EOS, 12, EOS, EOS, 13, EOS]
    canvas = canvas_of([MASK] * 8)
    canvas.enter_block(0, 3, 7)
    canvas.prompts[0] = replace(canvas.prompts[0], gen_length=8)
    state = SamplerState(rule.fields(), canvas.capacity, "cpu")
    state.append()
    eligible = rule.region.eligible(canvas)
    positions = rule.plan(canvas, eligible, state).positions
    logits = torch.stack([distribution(tokens[p - 3], sure[p - 3]) for p in positions[0]])[None]
    candidates = torch.from_numpy(np.take_along_axis(eligible, positions, axis=1))
    return View(canvas, torch.from_numpy(positions), logits, candidates), state


SURE = [0.90, 0.50, 0.85, 0.30, 0.60, 0.95, 0.20, 0.70]
UNSURE = [0.90, 0.50, 0.70, 0.30, 0.60, 0.95, 0.20, 0.70]


def eotp(base: str, zone: str, *options: str) -> Sampler:
    region = "sampler.base.region.block_length=4"
    named = [f"sampler@sampler.base={base}", f"sampler.zone={zone}", region]
    return built("sampler=eotp", *named, *options)


@pytest.mark.parametrize(
    ("filtered", "zone", "sure", "committed", "length"),
    [
        (False, "sequence", SURE, {0}, 6),
        (True, "sequence", SURE, {0, 2}, 3),
        (True, "sequence", UNSURE, {0}, 6),
        (True, "block", UNSURE, {0}, 3),
    ],
)
def test_predicted_end(
    diag: str, filtered: bool, zone: str, sure: list[float], committed: set[int], length: int
) -> None:
    rule = eotp("low_confidence", zone)
    if filtered:
        rule = eotp("learn2pd", zone, f"sampler.base.filter={diag}")
    view, state = cut_view(rule, sure)
    decision = rule.select(view, state)
    assert offsets(decision.commit, view) == [committed]
    assert decision.length is not None
    assert decision.length.tolist() == [3 + length]


def test_a_cut_answer_ends_there_and_counts_only_what_is_left() -> None:
    tokens = [10, 11, EOS, 12, EOS, EOS, 13, EOS]
    scene = list(zip(tokens, SURE, strict=True))
    rule = eotp("low_confidence", "sequence")
    prompt = Prompt("one", PROMPT, 8)
    outcome = decode(rule, [prompt], Script([scene], 3), record=True)["one"]
    # Position 5 is the most confident end until it is committed itself, then position 4.
    assert outcome.tokens == (10, 11, EOS, 12, EOS)
    assert outcome.committed == 5
    assert outcome.trace is not None
    assert next(len(canvas) for canvas in outcome.trace.replay()) == 6


def test_oracle() -> None:
    reference = (15, 16, 17, 18)
    scenes = [[15, 19, 17, 11], [15, 16, 17, 11], [15, 16, 17, 11]]
    script = [[(token, 0.8) for token in scene] for scene in scenes]
    rule = built("sampler=oracle", "sampler.region.block_length=4")
    prompt = Prompt("one", PROMPT, 4, reference)
    outcome = decode(rule, [prompt], Script(script, 3), record=True)["one"]
    assert outcome.trace is not None
    assert outcome.tokens == reference
    assert outcome.cost.nfe == 3
    assert [step.marks["final"] for step in outcome.trace.steps] == [[0, 2], [0, 1, 2], [0, 1, 2]]
    assert [step.positions for step in outcome.trace.steps] == [[0, 2], [1], [3]]


def test_oracle_without_reference() -> None:
    rule = built("sampler=oracle", "sampler.region.block_length=4")
    with pytest.raises(ConfigError, match="needs a reference answer of 1 to gen_length=4 tokens"):
        decode(rule, [Prompt("one", PROMPT, 4)])


def test_filter_of_another_block_length(diag: str) -> None:
    for block in (8, 2):
        rule = learn2pd(diag, f"sampler.region.block_length={block}")
        with pytest.raises(
            ConfigError, match=f"block_length=4, the region has block_length={block}"
        ):
            rule.validate(8)
    learn2pd(diag, "sampler.region.block_length=2", "sampler.narrow_blocks=pad").validate(8)


def test_filter_of_another_model(tmp_path: Path) -> None:
    save_filter(network(model="llada 9x9, vocabulary 9"), tmp_path / "filter.safetensors")
    rule = learn2pd(str(tmp_path))
    with pytest.raises(
        ConfigError, match="trained for llada 9x9, vocabulary 9, the model is llada"
    ):
        rule.check_model(SPEC)
    save_filter(network(model=model_signature(SPEC)), tmp_path / "filter.safetensors")
    learn2pd(str(tmp_path)).check_model(SPEC)


def test_files_that_are_no_filters(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file and no shipped filter"):
        learn2pd(str(tmp_path / "absent"))
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ConfigError, match="is no safetensors file"):
        learn2pd(str(tmp_path / "text"))
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(ConfigError, match="can't be read as tensors only"):
        convert_torch_filter(tmp_path / "code.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="is no Learn2PD filter"):
        convert_torch_filter(tmp_path / "other.pth")


def test_a_published_file_is_converted_and_probed(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "published.pth")
    converted = convert_torch_filter(tmp_path / "published.pth")
    save_filter(converted, tmp_path / "filter.safetensors")
    again = load_filter(tmp_path / "filter.safetensors")
    c = torch.rand(5, 4)
    assert torch.equal(again(c), network()(c))
    assert published_differences(again) == ["block_length=4: the published filter has 32"]
    wide = FilterNetwork(FilterFacts(block_length=32))
    assert len(published_differences(wide)) == 6


def test_effective_threshold() -> None:
    assert effective_threshold(network(), 0.96) == pytest.approx(0.82)
    assert effective_threshold(network(bias=-50.0), 0.96) == pytest.approx(1.01)


def test_parameters_of_the_published_size() -> None:
    wide = FilterNetwork(FilterFacts(block_length=32))
    assert sum(p.numel() for p in wide.parameters()) == 2112


@pytest.mark.parametrize("block", ["null", "8"])
def test_a_cut_leaves_the_quota_of_its_block_as_it_was(block: str) -> None:
    rule = built("sampler=eotp", f"sampler.base.region.block_length={block}")
    prompts = [replace(prompt, gen_length=16) for prompt in ragged_prompts(3)]
    shortened = 0
    for seed in range(6):
        predictor = Predictor(random_model(seed=seed))
        for outcome in decode(rule, prompts, predictor, record=True).values():
            assert outcome.failure is None and MASK not in outcome.tokens
            assert outcome.trace is not None
            assert all(len(step.positions) <= 1 for step in outcome.trace.steps)
            shortened += len(outcome.tokens) < 16
    assert shortened > 3

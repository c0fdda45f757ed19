"""The alignment of a drafter, from the verifier's answers to a checkpoint; what a kill leaves."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from killed_training import ends_as_if_undisturbed
from omegaconf import DictConfig
from small_model import SPEC

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED, ModelOptions, open_model
from dllm.models.loading import load_model, save_model
from dllm.models.transformer import Transformer
from dllm.tasks.suite import EmbeddedSuite
from dllm.training import sft
from dllm.training.batches import Stage
from dllm.training.drafter import Alignment, execute, record
from dllm.training.optimizers import initialise
from dllm.training.sft import Recipe


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


RECIPE = Recipe(stages={"all": Stage(until=1.0, lengths={32: 1.0})}, total_steps=1)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A small diffusion model with the embedded tokenizer."""
    folder = tmp_path / "start"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((EMBEDDED / "tiny-llada" / name).read_bytes())
    model = Transformer(replace(SPEC, vocab_size=854))
    initialise(model, 0)
    save_model(model, folder, torch.bfloat16)
    return folder


def configured(start: Path, output: Path, *options: str, steps: int = 2) -> DictConfig:
    stages = [
        f"++alignment.stages.{stage}.{option}={value}"
        for stage in ("distillation", "refinement")
        for option, value in {
            "total_steps": steps,
            "compile": "false",
            "bf16": "false",
            "log_every": 1,
        }.items()
    ]
    small = [
        f"alignment.stages.{stage}.{option}"
        for stage in ("distillation", "refinement")
        for option in ("tokens_per_micro=128", "eval_items=1")
    ]
    given = [
        "tracker=none",
        f"output={output}",
        f"alignment.start={start}",
        "alignment.questions=22",
        *stages,
        *small,
        *options,
    ]
    return compose(given, "train_drafter")


def test_both_stages_and_the_checkpoint(start: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "run", tmp_path / "tiny"
    execute(configured(start, output))
    first = load_model(output / "distillation" / "model")
    last = load_model(output / "refinement" / "model")
    # One token more than the start, whose rows it begins with.
    assert first.spec.vocab_size == last.spec.vocab_size == 855
    begun = load_model(start)
    apart = (first.embed.weight[:854] - begun.embed.weight).abs().max()
    assert apart < 0.05 < begun.embed.weight.abs().max()
    assert not torch.equal(first.embed.weight, last.embed.weight)
    execute(configured(start, output, f"export={folder}", "export_items=1"))
    model, tokenizer = open_model(ModelOptions(name="tiny", path=str(folder)))
    assert tokenizer.base.get_vocab()["<|sep|>"] == 854
    assert torch.equal(model.embed.weight, last.embed.weight)
    card = (folder / "README.md").read_text()
    assert "steps by stage: distillation 2, refinement 2" in card
    assert "greedy answers of tiny-ar to 22 training questions" in card


def test_the_same_command_goes_on(start: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    execute(configured(start, output))
    first = output / "distillation" / "model" / "model.safetensors"
    kept = first.read_bytes()
    # What a kill in the second stage and while answering leaves.
    (output / "refinement" / "state.pt").unlink()
    answers = (output / "answers-tiny-ar.jsonl").read_text().splitlines()
    (output / "answers-tiny-ar.jsonl").write_text("\n".join(answers[:-1]) + "\n" + answers[-1][:20])
    execute(configured(start, output))
    assert first.read_bytes() == kept
    assert (output / "refinement" / "state.pt").is_file()
    again = (output / "answers-tiny-ar.jsonl").read_text().splitlines()
    assert sorted(again) == sorted(answers)


def test_killed_anywhere_it_ends_as_if_undisturbed(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = tmp_path / "answers.jsonl"
    often = [f"++alignment.stages.{s}.save_minutes=0" for s in ("distillation", "refinement")]

    def train(output: Path) -> None:
        # Answered once for all, which is tested elsewhere.
        output.mkdir(exist_ok=True)
        if answered.is_file():
            (output / "answers-tiny-ar.jsonl").write_bytes(answered.read_bytes())
        execute(configured(start, output, *often))
        answered.write_bytes((output / "answers-tiny-ar.jsonl").read_bytes())

    files = [f"{stage}/model/model.safetensors" for stage in ("distillation", "refinement")]
    ends_as_if_undisturbed(monkeypatch, train, tmp_path, *files)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("alignment.questions=11", "holds a training with questions=22, this one has 11"),
        ("alignment.longest=39", "holds a training with longest=80, this one has 39"),
        ("alignment.stages.refinement.seed=5", "holds a training with seed=1, this one has 5"),
        ("alignment.stages.distillation.total_steps=1", "total_steps=2, this one has 1"),
        ("start", "holds a training with start_weights="),
    ],
)
def test_another_alignment_in_the_folder_is_refused(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, words: str
) -> None:
    """Also where it starts with other weights."""
    monkeypatch.setattr(sft, "accuracy", lambda *_: {"copy": 0.5})
    output = tmp_path / "run"
    execute(configured(start, output))
    if change == "start":
        (start / "model.safetensors").write_bytes(other_weights(start, 1))
    before = {path: path.read_bytes() for path in output.rglob("*.pt")}
    with pytest.raises(ConfigError, match=words):
        execute(configured(start, output, *([change] if "=" in change else [])))
    assert {path: path.read_bytes() for path in output.rglob("*.pt")} == before


def other_weights(folder: Path, seed: int) -> bytes:
    """Those of a checkpoint of the same shape."""
    model = Transformer(load_model(folder).spec)
    initialise(model, seed)
    save_model(model, folder.parent / "other", torch.bfloat16)
    return (folder.parent / "other" / "model.safetensors").read_bytes()


def test_a_model_that_was_taken_away_or_damaged_is_written_again(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "accuracy", lambda *_: {"copy": 0.5})
    output = tmp_path / "run"
    execute(configured(start, output))
    model = output / "refinement" / "model" / "model.safetensors"
    kept = model.read_bytes()
    for damage in (Path.unlink, lambda path: path.write_bytes(kept[:300])):
        damage(model)
        execute(configured(start, output))
        assert model.read_bytes() == kept


def test_answers_are_the_verifier_s_own(tmp_path: Path) -> None:
    alignment = Alignment(
        start="", verifier="tiny-ar", separator="", questions=11, longest=40, stages={"all": RECIPE}
    )
    recorded = record(alignment, tmp_path / "answers.jsonl")
    suite = EmbeddedSuite()
    sample = recorded.draw_from("train", "copy", Random(0))
    assert sample.split == "train" and suite.grade(sample, sample.answer)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 11 and all(len(json.loads(line)["ids"]) <= 40 for line in lines)


def test_what_is_refused(start: Path, tmp_path: Path) -> None:
    for options, words in (
        ([f"export={tmp_path / 'x'}"], "holds no saved state of distillation to export"),
        (["alignment.separator='<|user|>'"], "alignment.separator=.* is no further token"),
        ([f"alignment.start={tmp_path}"], "holds no tokenizer.json"),
        (["alignment.questions=0"], "alignment.questions=0 must be >= 1"),
        (["alignment.verifier=tiny-llada"], "alignment.verifier=tiny-llada is not autoregressive"),
        (["alignment.longest=1"], "alignment.longest=1: no answer of tiny-ar has so few tokens"),
        (
            ["alignment.stages.refinement.objective.separator=5"],
            "refinement.objective.separator=5 is not the id of <|sep|>, 854",
        ),
        (
            ["alignment.stages.refinement.objective.alpha=0"],
            "alignment.stages.refinement.objective.alpha=0 must be > 0",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            execute(configured(start, tmp_path / "run", *options))

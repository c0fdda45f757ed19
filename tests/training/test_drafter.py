"""The alignment of a drafter, from the verifier's answers to a checkpoint; what a kill leaves."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from omegaconf import DictConfig
from small_model import SPEC

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED, ModelOptions, open_model
from dllm.models.loading import load_model, save_model
from dllm.models.transformer import Transformer
from dllm.tasks.suite import EmbeddedSuite
from dllm.training.drafter import Alignment, execute, record
from dllm.training.optimizers import initialise


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


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
        f"{'' if option == 'total_steps' else '+'}alignment.stages.{stage}.{option}={value}"
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
    kept = (output / "distillation" / "model" / "model.safetensors").stat().st_mtime_ns
    # What a kill in the second stage and while answering leaves.
    (output / "refinement" / "state.pt").unlink()
    answers = (output / "answers.jsonl").read_text().splitlines()
    (output / "answers.jsonl").write_text("\n".join(answers[:-1]) + "\n" + answers[-1][:20])
    execute(configured(start, output))
    assert (output / "distillation" / "model" / "model.safetensors").stat().st_mtime_ns == kept
    assert (output / "refinement" / "state.pt").is_file()
    again = (output / "answers.jsonl").read_text().splitlines()
    assert sorted(again) == sorted(answers)


def test_answers_are_the_verifier_s_own(tmp_path: Path) -> None:
    alignment = Alignment(
        start="", verifier="tiny-ar", separator="", questions=11, longest=40, stages={}
    )
    recorded = record(alignment, tmp_path / "answers.jsonl")
    suite = EmbeddedSuite()
    sample = recorded.draw_from("train", "copy", Random(0))
    assert sample.split == "train" and suite.grade(sample, sample.answer)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 11 and all(len(json.loads(line)["ids"]) <= 40 for line in lines)


def test_what_is_refused(start: Path, tmp_path: Path) -> None:
    for options, words in (
        ([f"export={tmp_path / 'x'}"], "holds no saved state of refinement to export"),
        (["alignment.separator='<|user|>'"], "alignment.separator=.* is no further token"),
        ([f"alignment.start={tmp_path}"], "holds no tokenizer.json"),
    ):
        with pytest.raises(ConfigError, match=words):
            execute(configured(start, tmp_path / "run", *options))

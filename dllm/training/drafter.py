"""Aligns a diffusion model with the autoregressive one that will verify its drafts.

`python -m scripts.train drafter`: the two stages of DEER (arXiv 2512.15176, section 3.2) on answers
of the verifier, see `dllm.training.drafting`. Answers and stages are kept: the same command goes on
where it was stopped. With `export=FOLDER` it trains nothing and writes what the last stage has
saved there, with its card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from dllm.config import build, fingerprint, full_paths
from dllm.errors import ConfigError
from dllm.models.hub import ModelOptions, open_model, open_spec
from dllm.models.json_file import read_object
from dllm.models.loading import read_spec
from dllm.printable import public
from dllm.tasks.base import Sample, Split
from dllm.tasks.suite import EmbeddedSuite
from dllm.tracking.tracker import RunInfo, Tracker
from dllm.training.checkpoints import NAME
from dllm.training.checks import not_below
from dllm.training.distill import answers, check_autoregressive
from dllm.training.export import export
from dllm.training.metric_log import MetricLog
from dllm.training.sft import Recipe, Trainer
from dllm.training.vocabulary import read_tokenizer


@dataclass(frozen=True, kw_only=True)
class Alignment:
    start: str
    """Checkpoint folder of the diffusion model."""
    verifier: str
    """Embedded model whose answers are learnt."""
    separator: str
    """Token behind the cut; added to the vocabulary as its last one."""
    questions: int
    """Training questions, the kinds in turn (>= 1)."""
    longest: int
    """Tokens of an answer, its end included; longer ones are left out."""
    stages: Mapping[str, Recipe]
    """Name -> recipe, each going on from the weights of the one before."""

    def __post_init__(self) -> None:
        not_below(self, "alignment", 1, "questions", "longest")
        if not self.stages:
            raise ConfigError("alignment.stages={} names nothing to train")


@dataclass(frozen=True)
class Recorded:
    """Training questions with the answers that a model gave."""

    samples: Mapping[str, Sequence[Sample]]
    """By kind."""

    @property
    def kinds(self) -> Sequence[str]:
        return tuple(self.samples)

    @property
    def mark(self) -> str:
        """Hash of questions and answers, 16 hex digits."""
        told = [(s.id, s.prompt, s.answer) for part in self.samples.values() for s in part]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def draw_from(self, split: Split, kind: str, rng: Random) -> Sample:
        assert split == "train", "nothing else is recorded"
        return rng.choice(self.samples[kind])


def execute(config: DictConfig) -> None:
    """Records answers and trains every stage, or exports the last one."""
    alignment: Alignment = build(config.alignment, "alignment")
    start, output = Path(alignment.start), Path(config.output)
    for name in alignment.stages if config.export is not None else ():
        if not (output / name / NAME).is_file():
            raise ConfigError(f"output={output} holds no saved state of {name} to export")
    if not (start / "tokenizer.json").is_file():
        raise ConfigError(f"alignment.start={start} holds no tokenizer.json")
    tokenizer = read_tokenizer("alignment.start", start / "tokenizer.json")
    tokenizer.add_special_tokens([AddedToken(alignment.separator, special=True, normalized=False)])
    spec = read_spec(start)
    if tokenizer.get_vocab_size() != spec.vocab_size + 1:
        raise ConfigError(
            f"alignment.separator={alignment.separator} is no further token: {start} has "
            f"{spec.vocab_size} rows, its tokenizer with the separator "
            f"{tokenizer.get_vocab_size()} tokens"
        )
    for name, recipe in alignment.stages.items():
        told = getattr(recipe.objective, "separator", spec.vocab_size)
        if told != spec.vocab_size:
            raise ConfigError(
                f"alignment.stages.{name}.objective.separator={told} is not the id of "
                f"{alignment.separator}, {spec.vocab_size}"
            )
    spec = replace(spec, vocab_size=spec.vocab_size + 1)
    tracker: Tracker = build(config.tracker, "tracker")
    plain = OmegaConf.to_container(config, resolve=True)
    tracker.start(RunInfo(output, fingerprint(config), "train drafter", plain))  # type: ignore[arg-type]
    try:
        recorded = record(alignment, output / f"answers-{alignment.verifier}.jsonl")
        data = {name: getattr(alignment, name) for name in ("verifier", "questions", "longest")}
        data["recorded"] = recorded.mark
        weights = start
        trainer = None
        for name, recipe in alignment.stages.items():
            recipe = replace(recipe, start=str(weights))
            with full_paths(config.alignment.stages[name], f"alignment.stages.{name}"):
                trainer = Trainer(spec, tokenizer, recipe, output / name, recorded, data)
            trainer.resume(trains=config.export is None)
            if config.export is None:
                metrics = output / name / "metrics.jsonl"
                with closing(MetricLog(metrics, tracker, trainer.done)) as log:
                    trainer.run(log)
            weights = output / name / "model"
            write_tokenizer(tokenizer, alignment.separator, start, weights)
    finally:
        tracker.finish()
    assert trainer is not None
    if config.export is None:
        return
    folder = Path(config.export)
    write_tokenizer(tokenizer, alignment.separator, start, folder)
    print(export(trainer.model, folder, _facts(config, alignment, trainer), config.export_items))


def _facts(config: DictConfig, alignment: Alignment, trainer: Trainer) -> dict[str, Any]:
    """What the card says of the training of all stages."""
    states = [
        torch.load(Path(config.output) / name / NAME, map_location="cpu", weights_only=True)
        for name in alignment.stages
    ]
    totals = {name: sum(state["totals"][name] for state in states) for name in trainer.totals}
    steps = ", ".join(
        f"{name} {state['step']:,}" for name, state in zip(alignment.stages, states, strict=True)
    )
    return totals | {
        "steps": sum(state["step"] for state in states),
        "seed": trainer.recipe.seed,
        "start": public(alignment.start),
        "machine": config.machine,
        "command": config.command,
        "course": f"steps by stage: {steps}; {config.course}",
        "data": f"greedy answers of {alignment.verifier} to {alignment.questions:,} training "
        "questions of `dllm.tasks.suite.EmbeddedSuite`, cut at random",
        "objective": "DEER's two stages: scattered masks before the cut, then the last tokens "
        "before it, weighted; a separator stands behind",
        "tokenizer": f"that of {alignment.start} with one more token, the separator",
    }


def record(alignment: Alignment, path: Path) -> Recorded:
    """The verifier's greedy answers to training questions; those that did not end are left out."""
    verifier = ModelOptions(name=alignment.verifier)
    check_autoregressive(f"alignment.verifier={alignment.verifier}", open_spec(verifier))
    model, tokenizer = open_model(verifier)
    suite = EmbeddedSuite()
    asked = suite.samples("train", alignment.questions)
    given = answers(
        model, tokenizer, [s.prompt for s in asked], path, longest=alignment.longest, batch=256
    )
    found: dict[str, list[Sample]] = {kind: [] for kind in suite.kinds}
    for sample, ids in zip(asked, given, strict=True):
        if len(ids) < alignment.longest:
            answer = tokenizer.decode(ids, skip_special_tokens=False)
            found[sample.task].append(replace(sample, answer=answer))
    if not any(found.values()):
        raise ConfigError(
            f"alignment.longest={alignment.longest}: no answer of {alignment.verifier} has so few "
            "tokens"
        )
    return Recorded({kind: samples for kind, samples in found.items() if samples})


def write_tokenizer(tokenizer: FastTokenizer, separator: str, start: Path, folder: Path) -> None:
    """The start's tokenizer files with one more special token."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = read_object(start / "tokenizer_config.json")
    config["additional_special_tokens"] = [*config["additional_special_tokens"], separator]
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

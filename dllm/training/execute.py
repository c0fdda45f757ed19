"""A training run from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer

from dllm.config import build, fingerprint
from dllm.errors import ConfigError
from dllm.models.hub import ModelOptions, open_model
from dllm.models.spec import ModelSpec
from dllm.tracking.tracker import RunInfo
from dllm.training.adaptation import Adaptation
from dllm.training.adaptation import Trainer as AdapterTrainer
from dllm.training.checkpoints import NAME
from dllm.training.export import export
from dllm.training.metric_log import MetricLog
from dllm.training.sft import Trainer


def execute(config: DictConfig) -> None:
    """Trains to the end, or only exports the saved state where `export` names a folder."""
    if "base" in config.training:
        return adapt(config)
    output = Path(config.output)
    if config.export is not None and not (output / NAME).is_file():
        raise ConfigError(f"output={output} holds no saved state to export")
    spec = _plain(config.training.spec)
    spec["eos_ids"] = tuple(spec["eos_ids"])
    trainer = Trainer(
        ModelSpec(**spec),
        Tokenizer.from_file(str(_existing(config.tokenizer))),
        build(config.training.recipe, "training.recipe"),
        output,
    )
    resumed = trainer.resume()
    if config.export is not None:
        course = config.training.get("course", "as in the recipe")
        facts = {"steps": trainer.done, "device": config.device, "command": config.command}
        facts |= {"seed": trainer.recipe.seed, "course": course}
        facts |= {"start": trainer.recipe.start or "random"}
        facts |= trainer.totals
        print(export(trainer.model, Path(config.export), facts, config.export_items))
        return
    print(f"{'resumed at' if resumed else 'starting at'} step {trainer.done}", flush=True)
    _train(config, trainer)


def adapt(config: DictConfig) -> None:
    """The same for an adapter of the pretrained model `training.base`."""
    output, export_to = Path(config.output), config.export
    if export_to is not None and not (output / NAME).is_file():
        raise ConfigError(f"output={output} holds no saved state to export")
    recipe: Adaptation = build(config.training.recipe, "training.recipe")
    # Its weights are stored in bfloat16; what is learnt is float32.
    model, tokenizer = open_model(ModelOptions(name=config.training.base, dtype="bfloat16"))
    trainer = AdapterTrainer(model, tokenizer, recipe, output)
    resumed = trainer.resume()
    if export_to is not None:
        course = config.training.get("course", "as in the recipe")
        trainer.export(Path(export_to), config.command, course)
        return
    print(f"{'resumed at' if resumed else 'starting at'} step {trainer.done}", flush=True)
    _train(config, trainer)


def _train(config: DictConfig, trainer: Trainer | AdapterTrainer) -> None:
    tracker = build(config.tracker, "tracker")
    label = f"train {config.model.name}"
    output = Path(config.output)
    tracker.start(RunInfo(output, fingerprint(config), label, _plain(config)))
    log = MetricLog(output / "metrics.jsonl", tracker, trainer.done)
    try:
        tracker.summary(trainer.run(log))
    finally:
        log.close()
        tracker.finish()


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise ConfigError(f"tokenizer={path} does not exist: python -m dllm.training.vocabulary")
    return Path(path)


def _plain(config: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))

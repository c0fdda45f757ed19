"""A training run from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer

from dllm.config import build, fingerprint
from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.tracking.tracker import RunInfo
from dllm.training.checkpoints import NAME
from dllm.training.export import export
from dllm.training.metric_log import MetricLog
from dllm.training.sft import Trainer


def execute(config: DictConfig) -> None:
    """Trains to the end, or only exports the saved state where `export` names a folder."""
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
    tracker = build(config.tracker, "tracker")
    label = f"train {config.model.name}"
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

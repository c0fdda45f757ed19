"""A training run from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer

from dllm.config import build, fingerprint, fits, full_paths
from dllm.errors import ConfigError
from dllm.models.families import family_named
from dllm.models.hub import ModelOptions, open_model, open_spec
from dllm.models.spec import ModelSpec
from dllm.printable import public
from dllm.tracking.tracker import RunInfo
from dllm.training.adaptation import Adaptation
from dllm.training.adaptation import Trainer as AdapterTrainer
from dllm.training.checkpoints import NAME
from dllm.training.distill import check_autoregressive
from dllm.training.export import export, objective_of
from dllm.training.metric_log import MetricLog
from dllm.training.sft import Recipe, Trainer
from dllm.training.vocabulary import EOS, MASK, read_tokenizer, save_tokenizer


def execute(config: DictConfig) -> None:
    """Trains to the end, or only exports the saved state where `export` names a folder."""
    if "base" in config.training:
        return adapt(config)
    output = Path(config.output)
    if config.export is not None and not (output / NAME).is_file():
        raise ConfigError(f"output={output} holds no saved state to export")
    with full_paths(config.training.spec, "training.spec"):
        spec = _spec(_plain(config.training.spec))
    recipe = build(config.training.recipe, _RECIPE)
    tokenizer = read_tokenizer("tokenizer", Path(config.tokenizer))
    _check_sizes(spec, recipe, tokenizer)
    with full_paths(config.training.recipe, _RECIPE):
        trainer = Trainer(spec, tokenizer, recipe, output)
    resumed = trainer.resume(trains=config.export is None)
    if config.export is not None:
        course = config.training.get("course", "as in the recipe")
        facts = {"steps": trainer.done, "machine": config.machine, "command": config.command}
        facts |= {"seed": trainer.recipe.seed, "course": course}
        start = trainer.recipe.start
        facts |= {"start": "random" if start is None else public(start)}
        facts |= trainer.totals
        facts |= {"objective": objective_of(trainer.recipe)}
        folder = Path(config.export)
        save_tokenizer(tokenizer, folder)
        print(export(trainer.model, folder, facts, config.export_items))
        return
    print(f"{'resumed at' if resumed else 'starting at'} step {trainer.done}", flush=True)
    _train(config, trainer)


def adapt(config: DictConfig) -> None:
    """The same for an adapter of the pretrained model `training.base`."""
    output, export_to = Path(config.output), config.export
    if export_to is not None and not (output / NAME).is_file():
        raise ConfigError(f"output={output} holds no saved state to export")
    recipe: Adaptation = build(config.training.recipe, _RECIPE)
    # Its weights are stored in bfloat16; what is learnt is float32.
    base = ModelOptions(name=config.training.base, dtype="bfloat16")
    check_autoregressive(f"training.base={base.name}", open_spec(base))
    model, tokenizer = open_model(base)
    with full_paths(config.training.recipe, _RECIPE):
        trainer = AdapterTrainer(model, tokenizer, recipe, output, trains=export_to is None)
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


def _named(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


_RECIPE = "training.recipe"
_SIZES = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff")


def _spec(given: Mapping[str, Any]) -> ModelSpec:
    """Raises `ConfigError` for a field that is unknown, missing or of no value that can be."""
    hints = get_type_hints(ModelSpec) | {"eos_ids": list[int]}
    for name, value in given.items():
        if name not in hints:
            raise ConfigError(f"training.spec.{name} is no field; there are {', '.join(hints)}")
        if not fits(value, hints[name]):
            raise ConfigError(f"training.spec.{name}={value} is not of type {_named(hints[name])}")
    required = [field.name for field in fields(ModelSpec) if field.default is MISSING]
    for name in required:
        if name not in given:
            raise ConfigError(f"training.spec.{name} must be given")
    for name in (name for name in _SIZES if given[name] < 1):
        raise ConfigError(f"training.spec.{name}={given[name]} must be >= 1")
    for name in ("max_positions", "block_size"):
        if given.get(name) is not None and given[name] < 1:
            raise ConfigError(f"training.spec.{name}={given[name]} must be >= 1")
    for name in ("rope_theta", "norm_eps"):
        if given[name] <= 0:
            raise ConfigError(f"training.spec.{name}={given[name]} must be > 0")
    if not given["eos_ids"]:
        raise ConfigError("training.spec.eos_ids=[] names no end token")
    family_named(given["family"])
    return ModelSpec(**{**given, "eos_ids": tuple(given["eos_ids"])})


def _check_sizes(spec: ModelSpec, recipe: Recipe, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.get_vocab_size()
    ids = (*spec.eos_ids, spec.pad_id, spec.mask_id)
    if spec.vocab_size < tokens or not all(0 <= token < spec.vocab_size for token in ids):
        raise ConfigError(
            f"training.spec.vocab_size={spec.vocab_size} does not hold the tokenizer's {tokens} "
            f"tokens and the special ones {', '.join(map(str, ids))}"
        )
    for name, ours, text in (("mask_id", spec.mask_id, MASK), ("eos_ids", spec.eos_ids[0], EOS)):
        theirs = tokenizer.token_to_id(text)
        if theirs is not None and ours != theirs:
            raise ConfigError(
                f"training.spec.{name}: {ours} is not the tokenizer's {text}, {theirs}"
            )
    longest = max(length for stage in recipe.stages.values() for length in stage.lengths)
    if longest > spec.max_positions:
        raise ConfigError(
            f"training.spec.max_positions={spec.max_positions} is less than the recipe's longest "
            f"canvas, {longest}"
        )


def _plain(config: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))

"""Which samplers and caches a model can be combined with, and why not."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from dllm.cache.policy import CachePolicy
from dllm.config import build, compose
from dllm.engine.legality import misfits
from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED, ModelOptions
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer, load_tokenizer
from dllm.runs.beside import baseline_name
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.others import others
from dllm.step.sampler import Sampler


@dataclass(frozen=True)
class Support:
    """One option of a group, for one model."""

    option: str
    refusals: tuple[str, ...]
    """Why the combination is refused; empty = supported."""


def supported(group: str, spec: ModelSpec, own: Checkpoint | None) -> Iterator[Support]:
    """Every option of `conf/<group>` with its defaults, ascending, one sequence at a time: samplers
    without a cache, caches under the baseline. `own`: the model where it is here."""
    for option, parts in parts_of(group, baseline_name(spec)):
        if isinstance(parts, ConfigError):
            found = [f"needs options: {parts}"]
        else:
            found = unfit(*parts, spec, own)
        yield Support(option, tuple(found))


def unfit(
    sampler: Sampler, policy: CachePolicy, spec: ModelSpec, own: Checkpoint | None
) -> list[str]:
    """Why a run of these parts is refused; empty = it is not. Of a model that is not here texts of
    options become some tokenizer's, and what stands beside it (a verifier) goes unchecked."""
    config = _defaults()
    try:
        sampler = sampler.with_tokenizer(_embedded() if own is None else own.tokenizer)
        found = misfits(sampler, policy, spec, config.gen_length)
        if own is not None and not found:
            others(config, sampler, own)
    except ConfigError as error:
        return [str(error)]
    return found


def here(options: ModelOptions) -> tuple[Checkpoint | None, str | None]:
    """The model, None where no more than its architecture is here, and why nothing can be asked of
    what is."""
    if options.path is None and options.hub is not None:
        return None, None
    try:
        own = Checkpoint(options)
    except ConfigError as error:
        return None, str(error)
    try:
        own.tokenizer.chat("")
        own.tokenizer.day  # noqa: B018 - a template that asks for the hour is refused
    except ConfigError as error:
        return own, str(error)
    return own, None


@cache
def _embedded() -> Tokenizer:
    return load_tokenizer(EMBEDDED / "tiny-llada")


@cache
def _defaults() -> DictConfig:
    return compose([])


@cache
def parts_of(
    group: str, baseline: str = "low_confidence"
) -> list[tuple[str, tuple[Sampler, CachePolicy] | ConfigError]]:
    """Sampler and cache of every option, or why they can't be built from the defaults."""
    entries = files("conf").joinpath(group).iterdir()
    names = sorted(e.name.removesuffix(".yaml") for e in entries if e.name.endswith(".yaml"))
    # Starting Hydra costs as much as three compositions: once is enough.
    running = GlobalHydra.instance().is_initialized()
    found: list[tuple[str, tuple[Sampler, CachePolicy] | ConfigError]] = []
    with nullcontext() if running else initialize_config_module("conf", version_base="1.3"):
        for name in names:
            chosen = {"sampler": baseline, "cache": "none", group: name}
            try:
                config = compose([f"{key}={value}" for key, value in chosen.items()])
                parts = (build(config.sampler, "sampler"), build(config.cache, "cache"))
            except ConfigError as error:
                found.append((name, error))
            else:
                found.append((name, parts))
    return found

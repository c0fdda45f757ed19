"""Which samplers and caches a model can be combined with, and why not."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from dllm.config import build, compose
from dllm.engine.legality import refusals
from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec


@dataclass(frozen=True)
class Support:
    """One option of a group, for one model."""

    option: str
    refusals: tuple[str, ...]
    """Why the combination is refused; empty = supported."""


def supported(group: str, spec: ModelSpec) -> Iterator[Support]:
    """Every option of `conf/<group>`, ascending: samplers without a cache, caches under the
    baseline."""
    for option, parts in parts_of(group):
        if isinstance(parts, ConfigError):
            found = [f"needs options: {parts}"]
        else:
            found = refusals(*parts, spec)
        yield Support(option, tuple(found))


@cache
def parts_of(group: str) -> list[tuple[str, tuple[Any, Any] | ConfigError]]:
    """Sampler and cache of every option, or why they can't be built from the defaults."""
    entries = files("conf").joinpath(group).iterdir()
    names = sorted(e.name.removesuffix(".yaml") for e in entries if e.name.endswith(".yaml"))
    # Starting Hydra costs as much as three compositions: once is enough.
    running = GlobalHydra.instance().is_initialized()
    found: list[tuple[str, tuple[Any, Any] | ConfigError]] = []
    with nullcontext() if running else initialize_config_module("conf", version_base="1.3"):
        for name in names:
            chosen = {"sampler": "low_confidence", "cache": "none", group: name}
            try:
                config = compose([f"{key}={value}" for key, value in chosen.items()])
                parts = (build(config.sampler, "sampler"), build(config.cache, "cache"))
            except ConfigError as error:
                found.append((name, error))
            else:
                found.append((name, parts))
    return found

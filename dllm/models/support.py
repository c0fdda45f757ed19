"""Which samplers and caches a model can be combined with, and why not."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.legality import refusals
from dllm.models.spec import NO_MASK, ModelSpec


@dataclass(frozen=True)
class Support:
    """One option of a group, for one model."""

    option: str
    refusals: tuple[str, ...]
    """Why the combination is refused; empty = supported."""


def supported(group: str, spec: ModelSpec) -> Iterator[Support]:
    """Every option of `conf/<group>`, ascending: samplers without a cache, caches under the baseline."""
    entries = files("conf").joinpath(group).iterdir()
    names = sorted(e.name.removesuffix(".yaml") for e in entries if e.name.endswith(".yaml"))
    for name in names:
        yield Support(name, tuple(_refusals(group, name, spec)))


def _refusals(group: str, option: str, spec: ModelSpec) -> list[str]:
    if spec.mask_id == NO_MASK:
        return ["the model is autoregressive, it has no mask token: it only verifies drafts"]
    chosen = {"sampler": "low_confidence", "cache": "none", group: option}
    config = compose([f"{name}={value}" for name, value in chosen.items()])
    try:
        parts = [build(config[name], name) for name in ("sampler", "cache")]
    except ConfigError as error:
        return [f"needs options: {error}"]
    return refusals(parts[0], parts[1], spec)

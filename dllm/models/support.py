"""Which samplers and caches a model can be combined with, and why not.

Reads what the configured classes declare: `attention` (kinds under which they are meaningful) and
`needs`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from hydra.utils import get_class
from omegaconf import OmegaConf

from dllm.config import compose
from dllm.models.spec import NO_MASK, ModelSpec


@dataclass(frozen=True)
class Support:
    """One option of a group, for one model."""

    option: str
    refusal: str | None
    """Why the combination is refused; None = supported."""


def supported(group: str, spec: ModelSpec) -> Iterator[Support]:
    """Every option of `conf/<group>`, ascending."""
    found = files("conf").joinpath(group)
    names = sorted(entry.name for entry in found.iterdir() if entry.name.endswith(".yaml"))
    for name in (name.removesuffix(".yaml") for name in names):
        yield Support(name, refusal(group, name, spec))


def refusal(group: str, option: str, spec: ModelSpec) -> str | None:
    if group == "sampler" and spec.mask_id == NO_MASK:
        return "the model is autoregressive: it has no mask token"
    config = OmegaConf.select(compose([f"{group}={option}"]), group)
    for part in (config, *config.values()):
        if OmegaConf.is_dict(part) and "_target_" in part:
            kinds = getattr(get_class(part["_target_"]), "attention", None)
            if kinds is not None and spec.attention not in kinds:
                return (
                    f"needs {' or '.join(sorted(kinds))} attention, the model's is {spec.attention}"
                )
    return None

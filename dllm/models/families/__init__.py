"""The checkpoint formats the toolkit reads, and how a folder's format is recognised."""

from collections.abc import Collection

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import (
    autoregressive,
    diffusion_gemma,
    dream,
    fast_dllm_v2,
    llada,
    llada2,
    llada_moe,
    llama,
    sdar,
    wedlm,
)
from dllm.models.family import Family


FAMILIES: tuple[Family, ...] = (
    llada.FAMILY,
    llada_moe.FAMILY,
    llada2.FAMILY,
    dream.FAMILY,
    sdar.FAMILY,
    sdar.MOE_FAMILY,
    fast_dllm_v2.FAMILY,
    wedlm.FAMILY,
    diffusion_gemma.FAMILY,
    autoregressive.FAMILY,
    llama.FAMILY,
)


def family_named(name: str) -> Family:
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise ConfigError(f"model.family={name} is not one of {known}")


def recognise(config: CheckpointConfig) -> Family:
    """By `architectures[0]`, else by `model_type`, else by the names of the stored tensors.

    The later two may fit several families (LLaDA-MoE shares LLaDA's model type): then the tensor
    names decide, and where they cannot, the caller must name the family.
    """
    architecture = (config.get("architectures") or [None])[0]
    for family in FAMILIES:
        if architecture in family.architectures:
            return family
    model_type = config.get("model_type")
    fits = [f for f in FAMILIES if model_type in f.model_types]
    if not fits and architecture is None and model_type is None:
        fits = [f for f in FAMILIES if config.tensors is not None]
    fits = [f for f in fits if _marked(f, config.tensors)]
    if len(fits) == 1:
        return fits[0]
    shown = f"architecture {architecture!r}, model_type {model_type!r}"
    if fits:
        names = ", ".join(f.name for f in fits)
        raise ConfigError(f"{config.source}: {shown} may be {names}: set model.family")
    known = ", ".join(name for family in FAMILIES for name in family.architectures)
    raise ConfigError(f"{config.source}: {shown} is not supported, only {known}")


def _marked(family: Family, tensors: Collection[str] | None) -> bool:
    return tensors is None or all(name in tensors for name in family.marks)

"""Which combinations of sampler, cache and model make sense, and why the others do not.

One list of reasons for the loop, `scripts.run` and `scripts.inspect`; derived from what each part
declares, never from names.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from dllm.cache.policy import CachePolicy
from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.plan import MODEL, Need
from dllm.step.sampler import Sampler


@runtime_checkable
class _Phased(Protocol):
    """A cache that is refreshed at fixed steps."""

    refresh_cycle: int


def needs(sampler: Sampler) -> frozenset[Need]:
    """What the sampler's rule and its logits transform need from the engine."""
    transform = sampler.logits_transform
    return sampler.needs if transform is None else sampler.needs | transform.needs


def refusals(
    sampler: Sampler, cache: CachePolicy, spec: ModelSpec, batch_size: int = 1
) -> list[str]:
    """One line per reason why these parts can't decode together; empty = they can."""
    rule, policy = type(sampler).__name__, type(cache).__name__
    wanted = needs(sampler)
    found = []
    if sampler.batch_one and batch_size > 1:
        found.append(f"batch_size={batch_size}: {rule} is defined for batch_size=1")
    found += _attention(cache, spec, "the model's")
    # With causal blocks what is stored never changes; under full attention it ages.
    if "fresh_logits" in wanted and cache.stores and spec.attention == "full":
        found.append(
            f"sampler={rule} compares a position's predictions of successive steps, which "
            f"cache={policy} makes stale; use cache=none"
        )
    if "twins" in wanted:
        if cache.stores:
            found.append(f"sampler={rule} needs masked twins in every forward; use cache=none")
        if spec.attention != "full" or spec.logit_shift:
            found.append(
                f"sampler={rule} needs full attention and unshifted logits; the model's are "
                f"{spec.attention} with a shift of {spec.logit_shift}"
            )
    phase = sampler.phase()
    if phase is not None and isinstance(cache, _Phased) and phase != cache.refresh_cycle:
        found.append(
            f"sampler.refresh_cycle={phase} and cache.refresh_cycle={cache.refresh_cycle} differ: "
            f"sampler={rule} and cache={policy} are refreshed by the same steps"
        )
    try:
        sampler.check_model(spec)
    except ConfigError as error:
        found.append(str(error))
    return found


def other_refusals(
    sampler: Sampler, others: Mapping[str, tuple[CachePolicy, ModelSpec]]
) -> list[str]:
    """One line per reason why the models beside the canvas's can't serve the sampler."""
    found = [
        f"sampler={type(sampler).__name__} asks for model {name!r}, which the session lacks"
        for name in sorted(sampler.models - others.keys())
    ]
    for name, (cache, spec) in others.items():
        if name == MODEL:
            found.append(f"model {name!r} is the canvas's own: another one needs another name")
        found += _attention(cache, spec, f"that of model {name!r}")
    return found


def _attention(cache: CachePolicy, spec: ModelSpec, whose: str) -> list[str]:
    if spec.attention in cache.attention:
        return []
    allowed, policy = " or ".join(sorted(cache.attention)), type(cache).__name__
    return [f"cache={policy} needs {allowed} attention; {whose} is {spec.attention}"]

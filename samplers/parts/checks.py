"""Checks of option values shared by samplers."""

from collections.abc import Iterable

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.sampler import Sampler
from dllm.step.schedule import Value, extremes


def in_unit_interval(option: str, value: Value) -> None:
    """Raises `ConfigError` unless 0 <= value <= 1, for a schedule at every step."""
    low, high = extremes(value)
    if not 0 <= low <= high <= 1:
        shown = f"{low}..{high}" if low < high else value  # not a number is no range
        raise ConfigError(f"sampler.{option}={shown} is outside [0, 1]")


def not_below(option: str, value: float, bound: float) -> None:
    """Raises `ConfigError` if value < bound."""
    if not value >= bound:
        raise ConfigError(f"sampler.{option}={value} must be >= {bound}")


def in_vocabulary(option: str, ids: Iterable[int] | None, spec: ModelSpec) -> None:
    """Raises `ConfigError` for token ids that the model has no tokens for, or that mask."""
    for token in ids or ():
        if not 0 <= token < spec.vocab_size:
            raise ConfigError(
                f"sampler.{option}: token id {token} is outside the vocabulary "
                f"[0, {spec.vocab_size})"
            )
        if token == spec.mask_id:
            raise ConfigError(f"sampler.{option}: token id {token} is the model's mask token")


def free_commits(base: Sampler) -> None:
    """Raises `ConfigError` for a base whose commits a wrapper may not change."""
    if base.plans_commits:
        raise ConfigError(
            f"sampler.base={type(base).__name__} plans its commits ahead: no other rule may add to "
            "them or take from them"
        )


def free_length(base: Sampler) -> None:
    """Raises `ConfigError` for a base that decides by itself where the answer ends."""
    if base.decides_length:
        raise ConfigError(
            f"sampler.base={type(base).__name__} decides the length of the answer by itself: no "
            "other rule may cut it"
        )

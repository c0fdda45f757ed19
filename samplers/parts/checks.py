"""Checks of option values shared by samplers."""

from dllm.errors import ConfigError
from dllm.step.schedule import Value, extremes


def in_unit_interval(option: str, value: Value) -> None:
    """Raises `ConfigError` unless 0 <= value <= 1, for a schedule at every step."""
    low, high = extremes(value)
    if not 0 <= low <= high <= 1:
        shown = value if low == high else f"{low}..{high}"
        raise ConfigError(f"sampler.{option}={shown} is outside [0, 1]")


def not_below(option: str, value: float, bound: float) -> None:
    """Raises `ConfigError` if value < bound."""
    if not value >= bound:
        raise ConfigError(f"sampler.{option}={value} must be >= {bound}")

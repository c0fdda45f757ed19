"""Checks of option values shared by samplers."""

from dllm.errors import ConfigError


def in_unit_interval(option: str, value: float) -> None:
    """Raises `ConfigError` unless 0 <= value <= 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"sampler.{option}={value} is outside [0, 1]")

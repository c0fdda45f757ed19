"""Checks of option values shared by the trainings."""

from dllm.errors import ConfigError


def not_below(part: object, path: str, bound: float, *names: str) -> None:
    """Raises `ConfigError` for a field of the part, whose options begin with `path`, that is less
    than the bound or no number."""
    for name in names:
        value = getattr(part, name)
        if not value >= bound:
            raise ConfigError(f"{path}.{name}={value} must be >= {bound}")

"""Ranges of options: a bound is allowed, what is beyond it is refused by name."""

import math
from typing import NamedTuple

import pytest
from omegaconf import DictConfig, OmegaConf

from dllm.config import build
from dllm.errors import ConfigError


class Range(NamedTuple):
    allowed: tuple[float, ...]
    refused: tuple[float, ...]
    phrase: str
    """What the refusal says behind option and value."""


def at_least(bound: float, below: float) -> Range:
    return Range((bound,), (below,), f"must be >= {bound}")


TINY = math.nextafter(0, -1)
UNIT = Range((0.0, 1.0), (TINY, math.nextafter(1, 2)), "is outside [0, 1]")
POSITIVE = Range((math.nextafter(0, 1),), (0.0,), "must be > 0")


def check_range(config: DictConfig, group: str, option: str, expected: Range) -> None:
    """Builds `config.<group>` with every value of its option, allowed ones and others."""
    path = f"{group}.{option}"
    for value in expected.allowed:
        OmegaConf.update(config, path, value)
        build(config[group], group)
    for value in expected.refused:
        OmegaConf.update(config, path, value)
        with pytest.raises(ConfigError) as error:
            build(config[group], group)
        assert str(error.value) == f"{path}={value} {expected.phrase}"

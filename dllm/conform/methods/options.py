"""Command lines of this toolkit from the authors' recorded parameters, written as tables."""

import json
from collections.abc import Callable, Mapping
from typing import Any


Params = Mapping[str, Any]
"""The authors' names and values."""
Overrides = Callable[[Params], list[str]]
Source = str | Callable[[Params], object]
"""Where an option's value comes from: the recorded parameter of that name, or a function of all."""
Part = str | Mapping[str, Source] | Overrides


def command(*parts: Part) -> Overrides:
    """The options that all parts write, in their order.

    A text is an option, `{name}` in it stands for a parameter; a table maps options to their
    sources; anything else writes its options itself.
    """

    def overrides(p: Params) -> list[str]:
        return [text for part in parts for text in _written(part, p)]

    return overrides


def _written(part: Part, p: Params) -> list[str]:
    if isinstance(part, str):
        return [part.format_map(p)]
    if isinstance(part, Mapping):
        return [f"{name}={json.dumps(_value(source, p))}" for name, source in part.items()]
    return part(p)


def _value(source: Source, p: Params) -> object:
    return p[source] if isinstance(source, str) else source(p)


def same(prefix: str, *names: str) -> dict[str, Source]:
    """Options that have the authors' names."""
    return {f"{prefix}.{name}": name for name in names}


def either(condition: Callable[[Params], object], then: Part, otherwise: Part) -> Overrides:
    return lambda p: _written(then if condition(p) else otherwise, p)


def inside(*parts: Part) -> Overrides:
    """The choice and options of a sampler as those of the base inside another one."""
    inner = command(*parts)
    return lambda p: [_moved(text) for text in inner(p)]


def _moved(text: str) -> str:
    key, _, value = text.partition("=")
    group, _, package = key.partition("@")
    if group == "sampler" or group.startswith("sampler/"):
        package = package or group.replace("/", ".")
        return f"{group}@sampler.base{package.removeprefix('sampler')}={value}"
    if key.startswith("sampler."):
        return f"sampler.base{key.removeprefix('sampler')}={value}"
    return text

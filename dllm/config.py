"""Configuration: composing it, building objects from it, and the fingerprint that names a run.

`conf/` holds every option with its default; a class named by `_target_` has the same fields.
Imports nothing heavy: `--help` and `--cfg job` must not wait for torch.
"""

import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dllm.errors import ConfigError


TRUSTED = ("dllm.", "samplers.")
"""Packages whose classes a configuration may name; another one needs `allow_external=true`."""

WITHOUT_EFFECT = ("hydra", "tracker", "output", "progress", "baseline", "allow_external", "trace")
"""Top-level keys that cannot change a sample's result: not part of the fingerprint."""


GROUPS = ("model", "sampler", "cache", "constraint", "task", "tracker")
"""Groups of which every run needs a choice."""


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """The configuration that the command line `overrides` would give."""
    try:
        if GlobalHydra.instance().is_initialized():
            return hydra_compose(config_name, list(overrides))
        with initialize_config_module("conf", version_base="1.3"):
            return hydra_compose(config_name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_flat(error)) from None


def choices(group: str) -> list[str]:
    """Names of the configurations in a group."""
    files = resources.files("conf").joinpath(group).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def fingerprint(config: DictConfig) -> str:
    """Hash of everything in a configuration that can change a result (12 hex digits)."""
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [str(k) for k in config if k not in WITHOUT_EFFECT]),
        resolve=True,
    )
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(config: DictConfig, default: DictConfig, prefix: str = "") -> list[str]:
    """`key=value` of everything in a sampler's `config` that differs from `default`, parts by their
    dotted name; a part of another class by its name in `conf` and what differs from that."""
    found = []
    for key in config:
        ours, theirs = config[key], default.get(key)
        if _class(ours) != _class(theirs) and isinstance(ours, DictConfig):
            name, theirs = option_of(f"sampler/{key}", ours)
            found.append(f"{prefix}{key}={name}")
        if isinstance(ours, DictConfig) and isinstance(theirs, DictConfig):
            found += differences(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            found.append(f"{prefix}{key}={_plain(ours)}")
    return found


def _class(part: Any) -> str | None:
    return part.get("_target_") if isinstance(part, DictConfig) else None


def option_of(group: str, part: DictConfig) -> tuple[str, DictConfig]:
    """Name and defaults of the group's first option with the class of `part`; where there is none,
    the class and the part itself."""
    folder = resources.files("conf").joinpath(group)
    for name in choices(group) if folder.is_dir() else ():
        default = OmegaConf.create(folder.joinpath(f"{name}.yaml").read_text())
        assert isinstance(default, DictConfig)
        if _class(default) == _class(part):
            return name, default
    return str(_class(part)).rsplit(".", 1)[-1], part


def build(config: DictConfig, option: str, allow_external: bool = False) -> Any:
    """The object described by `config`, None if it names no class.

    Raises `ConfigError` naming `option` for an unknown class, a missing, unknown or wrongly typed
    field.
    """
    if "_target_" not in config:
        return None
    _check(config, option, allow_external)
    try:
        return instantiate(config, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        if isinstance(cause, (TypeError, ValueError)):
            raise ConfigError(f"{option}: {_flat(cause)}") from None
        raise


TOP_LEVEL: Mapping[str, Any] = {
    "gen_length": int,
    "eos": str,
    "batch_size": int,
    "seed": int,
    "limit": int | None,
    "trace": bool,
    "baseline": bool,
    "progress": bool,
    "allow_external": bool,
    "output": str,
}
"""Types of the options outside the groups; whole numbers but the seed are >= 1."""


def check_complete(config: DictConfig) -> None:
    """Resolves the configuration in place.

    Raises `ConfigError` for an interpolation of nothing and for a value still to be given (`???`).
    """
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise ConfigError(_flat(error)) from None
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given")


def check_top_level(config: DictConfig) -> None:
    """Raises `ConfigError` for an option outside the groups that is wrongly typed or out of range,
    and for a group without a choice."""
    for name, hint in TOP_LEVEL.items():
        value = config[name]
        if not _fits(value, hint):
            raise ConfigError(f"{name}={value} is not of type {_spell(hint)}")
        if isinstance(value, int) and hint is not bool and name != "seed" and value < 1:
            raise ConfigError(f"{name}={value} must be >= 1")
    for name in GROUPS:
        if not isinstance(config.get(name), DictConfig):
            raise ConfigError(f"{name}={config.get(name)} needs a choice: {name}=...")


def _check(config: Mapping[str, Any], option: str, allow_external: bool) -> None:
    """Types and names of one object's fields, its parts included."""
    target = config["_target_"]
    if not allow_external and not target.startswith(TRUSTED):
        raise ConfigError(
            f"{option}._target_={target} is outside {', '.join(TRUSTED)}: needs allow_external=true"
        )
    try:
        cls = get_class(target)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{option}._target_={target} can't be imported: {_flat(error)}") from None
    hints = typing.get_type_hints(cls.__init__)
    wanted = set(hints) - {"return"}
    given = {str(key) for key in config if key != "_target_"}
    for name in sorted(given - wanted):
        raise ConfigError(f"{option}.{name} is no option of {target}; it has {sorted(wanted)}")
    for name in sorted(given):
        value = config[name]
        if isinstance(value, DictConfig) and "_target_" in value:
            _check(value, f"{option}.{name}", allow_external)
        elif not _fits(_plain(value), hints[name]):
            raise ConfigError(f"{option}.{name}={value!r} is not of type {_spell(hints[name])}")


def _flat(error: Exception) -> str:
    """The message on one line."""
    return " ".join(str(error).split())


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value is of the annotated type (an int is a float, a bool is neither)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if hint is None or hint is type(None):
        return value is None
    if origin in (list, Sequence):
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, (int, float))
    # A part (a region, a proposer) is built from a mapping with a _target_, never a plain value.
    return not getattr(hint, "_is_protocol", False) and isinstance(value, hint)


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " | ".join(str(argument) for argument in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)

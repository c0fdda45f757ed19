"""Configuration: composing it, building objects from it, and the fingerprint that names a run.

`conf/` holds every option with its default; a class named by `_target_` has the same fields.
Imports nothing heavy: `--help` and `--cfg job` must not wait for torch.
"""

import difflib
import hashlib
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dllm.errors import ConfigError, inside


TRUSTED = ("dllm.", "samplers.")
"""Packages whose classes a configuration may name; another one needs `allow_external=true`."""

WITHOUT_EFFECT = (
    "hydra",
    "tracker",
    "executor",
    "output",
    "progress",
    "baseline",
    "allow_external",
    "trace",
    "alternatives",
    "overwrite",
    "wait_minutes",
    "objective",
    "nfe_budget",
    "dry",
    "published",
)
"""Top-level keys that cannot change a sample's result: not part of the fingerprint."""


GROUPS = ("model", "sampler", "cache", "constraint", "task", "tracker", "executor")
"""Groups of which every run needs a choice."""


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """The configuration that the command line `overrides` would give."""
    check_choices(overrides)
    try:
        if GlobalHydra.instance().is_initialized():
            return hydra_compose(config_name, list(overrides))
        with initialize_config_module("conf", version_base="1.3"):
            return hydra_compose(config_name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        message = unknown_choice(str(error)) or without_plus(_flat(error))
        raise ConfigError(message) from None


def check_choices(overrides: Sequence[str]) -> None:
    """Raises `ConfigError` for a group set to null, of which Hydra does not say the name, and for a
    class in Hydra's own part."""
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        if group.split(".")[0] == "hydra" and "_target_" in override:
            # Hydra builds its own parts before anything of ours could look at them.
            raise ConfigError(f"{override}: Hydra's parts are chosen by name (hydra/launcher=...)")
        if "null" in value.split(",") and (known := choices(group.split("@")[0])):
            raise ConfigError(f"{group}=null needs a choice: one of {', '.join(known)}")


_OF_ONES_OWN = {
    "model": "a checkpoint's folder is model=checkpoint model.path=FOLDER",
    "task": "a file of one's own is task=prompts task.path=FILE",
}


def unknown_choice(message: str) -> str | None:
    """One line for Hydra's message about a group's choice that is not there, None for another."""
    found = re.search(
        r"Could not find '([^']+)'\s+Available options in '([^']+)':\n((?:\t.*\n?)*)", message
    )
    if found is None:
        return None
    group, listed = found[2], found[3].split()
    value = found[1].removeprefix(f"{group}/")
    if group == "experiment":  # the one whose folders are no groups
        listed += _in_folders(group)
    close = difflib.get_close_matches(value, listed, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    if group in _OF_ONES_OWN and re.search(r"[/.]", value):
        hint = f" ({_OF_ONES_OWN[group]})"
    if group == "hydra/sweeper" and value in ("study", "optuna"):
        hint = ' (pip install "dllm-decode[sweep]")'
    return f"{group}={value} is unknown{hint}; available: {', '.join(listed)}"


def _in_folders(group: str) -> Iterator[str]:
    folders = resources.files("conf").joinpath(group).iterdir()
    for name in sorted(folder.name for folder in folders if folder.is_dir()):
        yield from (f"{name}/{choice}" for choice in choices(f"{group}/{name}"))


def without_plus(message: str) -> str:
    """Hydra's message about an unknown option without the advice to force it: that is refused."""
    foreign = re.search(
        r"Could not override '(sampler/[^']+)'\. ?No match in the defaults list", message
    )
    if foreign:
        return f"{foreign[1]}=... is no choice of this sampler: it has no such part"
    message = re.sub(
        r"Could not override '([^']+)'\. To append to your config use "
        r"\+[^\s=]+=?(\{.*\})?.*?(?: Key .* not in \S+|$)",
        lambda found: (
            f"{found[1]}={found[2]} names an entry that is not there"
            if found[2]
            else f"{found[1]} is no option"
        ),
        message,
    )
    return re.sub(r"^Error merging override (\S+) ", r"\1: ", message)


def choices(group: str) -> list[str]:
    """Names of the configurations in a group; none where there is no such group."""
    folder = resources.files("conf").joinpath(group)
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def fingerprint(config: DictConfig) -> str:
    """Hash of everything in a configuration that can change a result (12 hex digits)."""
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [str(k) for k in config if k not in WITHOUT_EFFECT]),
        resolve=True,
    )
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def build(config: DictConfig, option: str, allow_external: bool = False, kind: Any = Any) -> Any:
    """The object described by `config`, None if it names no class.

    Raises `ConfigError` naming `option` for a class that is unknown or no `kind`, and for a
    missing, unknown or wrongly typed field.
    """
    if "_target_" not in config:
        for name in config:
            raise ConfigError(f"{option}.{name} is no option of {option}=none")
        return None
    _check(config, option, allow_external, kind)
    _check_targets(config, option, allow_external)
    try:
        return instantiate(config, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, (ConfigError, TypeError, ValueError)):
            raise
        located = _flat(cause)
        place = str(error).rpartition("full_key: ")[2].split(".")
        for _ in range(place.count("base") if option == "sampler" else 0):
            located = inside(located)
        located = with_full_path(located, config, option)
        if located == _flat(cause) and not isinstance(cause, ConfigError):
            located = f"{option}: {located}"
        raise ConfigError(located) from None


@contextmanager
def full_paths(config: DictConfig, option: str) -> Iterator[None]:
    """Within it the errors of `option`'s parts name what was typed."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(with_full_path(str(error), config, option)) from None


def with_full_path(message: str, config: DictConfig, option: str) -> str:
    """A part's message with the full path of the option that it begins with.

    A part does not know where it was put: inside another sampler it says `sampler.threshold=1.5`,
    typed was `sampler.base.threshold=1.5`. The option is found by its last names and its value.
    """
    begins = re.match(r"(?:\w+: )?([A-Za-z_][\w.]*)=", message)
    if begins is None:
        return message
    names, rest = begins[1].split("."), message[begins.end() :]
    places = [path for path, value in _leaves(config, option) if _begins_with(rest, value)]
    for cut in range(len(names)):
        ending = ".".join(names[cut:])
        found = [path for path in places if f".{path}".endswith(f".{ending}")]
        if found:
            return f"{min(found, key=len)}={rest}"
    return message


def _leaves(config: DictConfig, prefix: str) -> Iterator[tuple[str, Any]]:
    """Full path and value of every option that is no part."""
    for key in config:
        value = config[key]
        if isinstance(value, DictConfig):
            yield from _leaves(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", _plain(value)


def _begins_with(text: str, value: Any) -> bool:
    spelled = (str(value), repr(value), "null" if value is None else str(value))
    return any(re.match(re.escape(s) + r"(?![\w.])", text) for s in spelled)


_HINTS: Mapping[str, Any] = {
    "limit": int | None,
    "alternatives": int | None,
    "nfe_budget": float | None,
    "wait_minutes": float,
}
"""Types of top-level options of which the default shows less."""


def check_complete(config: DictConfig) -> None:
    """Resolves the configuration in place, `~` at the start of path options included.

    Raises `ConfigError` for an interpolation of nothing, for a value still to be given (`???`) and
    for an empty path, which would be the current folder.
    """
    _check_references(config)
    OmegaConf.resolve(config)
    # Of an escaped reference its text is left, which would be one again.
    _check_references(config, resolved=True)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given")
    _complete_paths(config)


def _check_references(config: Any, prefix: str = "", resolved: bool = False) -> None:
    """Raises `ConfigError` for a text with `${` that names no option, once resolved for any."""
    keys = range(len(config)) if isinstance(config, ListConfig) else list(config)
    for key in keys:
        path, why = f"{prefix}{key}", "in a path or text it can't be written"
        try:
            value = None if OmegaConf.is_missing(config, key) else config[key]
            wrong = resolved and OmegaConf.is_interpolation(config, key)
        except OmegaConfBaseException as error:
            value, wrong, why = None, True, str(error).splitlines()[0]
        if wrong:
            written = OmegaConf.to_container(config, resolve=False)[key]  # type: ignore[index]
            raise ConfigError(f"{path}={written}: ${{...}} stands for another option: {why}")
        if OmegaConf.is_config(value):
            _check_references(value, f"{path}.", resolved)


_PATHS = (
    *("output", "outputs", "export", "convert", "data", "adapter", "filter", "background"),
    *("tokenizer", "start", "questions"),
    *("grammar", "schema", "verifier"),  # or a name
)
_PATH_LIKE = re.compile(r"(.*_)?(path|file|folder|dir|table)s?")


def is_path(name: str) -> bool:
    """Whether the option so named, the last part of its full path, holds paths: those of `conf/`,
    and others that are called a path, file, folder, dir or table."""
    return name in _PATHS or _PATH_LIKE.fullmatch(name) is not None


def _complete_paths(config: Any, name: str = "") -> None:
    """Items of a list are called as the list."""
    keys = range(len(config)) if isinstance(config, ListConfig) else list(config)
    for key in keys:
        value = config[key]
        full = name if isinstance(key, int) else f"{name}.{key}".removeprefix(".")
        if OmegaConf.is_config(value):
            _complete_paths(value, full)
        elif isinstance(value, str) and is_path(full.rpartition(".")[2]):
            if not value:
                raise ConfigError(f"{full}= is empty")
            if at_home(value):
                config[key] = home(value)


def at_home(text: str) -> bool:
    """Whether a path begins in the user's home folder."""
    return text == "~" or text.startswith("~/")


def home(path: str) -> str:
    """The path with the user's home folder for a leading `~`."""
    return str(Path(path).expanduser())


OmegaConf.register_new_resolver("home", home, replace=True)


def shots(count: int, hub: str | None, path: str | None) -> int:
    """Worked examples in front of a question: none for an embedded model, which has no room."""
    return count if hub is not None or path is not None else 0


OmegaConf.register_new_resolver("shots", shots, replace=True)


def check_options(config: DictConfig, config_name: str = "config") -> None:
    """Raises `ConfigError` for a top-level option that conf/<config_name>.yaml does not have, one
    that was taken away, is wrongly typed or out of range, and for a group without a choice.

    An option has its default's type; whole numbers but the seed are >= 1.
    """
    known = _top_level(config_name)
    _refuse_unknown("", config, known)
    if HydraConfig.initialized():
        # Hydra keeps whatever is forced into its own part and never reads it.
        own = [*(field.name for field in fields(HydraConf)), "env"]
        _refuse_unknown("hydra.", HydraConfig.get(), own)
    for name, hint in known.items():
        if hint is DictConfig and not isinstance(config.get(name), DictConfig):
            wanted = "a choice: " if choices(name) else ""
            raise ConfigError(f"{name}={config.get(name)} needs {wanted}{name}=...")
        if name not in config:
            raise ConfigError(f"{name} must be given")
    _check_references(config)
    for name, hint in known.items():
        if hint is not DictConfig:
            _check_value(name, _plain(config[name]), hint)


def _refuse_unknown(prefix: str, config: Any, known: Collection[str]) -> None:
    for name in sorted(str(name) for name in config if str(name) not in known):
        raise ConfigError(f"{prefix}{name} is no option; there are {', '.join(sorted(known))}")


def _check_value(name: str, value: Any, hint: Any) -> None:
    if not fits(value, hint):
        raise ConfigError(f"{name}={value} {_misfit(value, hint)}")
    if value == "" and name != "prompt":
        raise ConfigError(f"{name}= is empty")
    least = 0 if hint is float else 1
    numbers: list[Any] = value if isinstance(value, list) else [value]
    if name != "seed" and any(type(n) in (int, float) and n < least for n in numbers):
        raise ConfigError(f"{name}={value} must be >= {least}")
    if value == []:
        raise ConfigError(f"{name}=[] needs at least one value")


@cache
def _top_level(config_name: str) -> dict[str, Any]:
    """Name -> type of a configuration's options, `DictConfig` for a group."""
    found: dict[str, Any] = {}
    for name, value in OmegaConf.to_container(compose((), config_name)).items():  # type: ignore[union-attr]
        if isinstance(value, dict):
            hint = DictConfig
        elif isinstance(value, list):
            hint = list[type(value[0])]
        else:
            hint = str | None if value is None or value == "???" else type(value)
        found[str(name)] = _HINTS.get(str(name), hint)
    return found


def _check_targets(config: Any, option: str, allow_external: bool) -> None:
    """Raises `ConfigError` for a class outside the trusted packages wherever it stands: what is
    built builds all that it holds, in lists and mappings, too."""
    for key in range(len(config)) if isinstance(config, ListConfig) else list(config):
        value, path = config[key], f"{option}.{key}"
        if OmegaConf.is_config(value):
            _check_targets(value, path, allow_external)
        elif key == "_target_":
            _check_target(value, option, allow_external)


def _check_target(target: Any, option: str, allow_external: bool) -> None:
    if not isinstance(target, str):
        raise ConfigError(f"{option}._target_={target} is not the name of a class")
    if not allow_external and not target.startswith(TRUSTED):
        raise ConfigError(
            f"{option}._target_={target} is outside {', '.join(TRUSTED)}: needs allow_external=true"
        )


def _check(config: Mapping[str, Any], option: str, allow_external: bool, kind: Any) -> None:
    """Class of one object, types and names of its fields, its parts included."""
    target = config["_target_"]
    _check_target(target, option, allow_external)
    try:
        cls = get_class(target)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{option}._target_={target} can't be imported: {_flat(error)}") from None
    if not _is_a(cls, kind):
        raise ConfigError(f"{option}={cls.__name__} is not of type {_spell(kind)}")
    hints = typing.get_type_hints(cls.__init__)
    wanted = set(hints) - {"return"}
    given = {str(key) for key in config if key != "_target_"}
    for name in sorted(given - wanted):
        raise ConfigError(f"{option}.{name} is no option of {target}; it has {sorted(wanted)}")
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name in wanted - given and parameter.default is parameter.empty:
            raise ConfigError(f"{option}.{name} must be given")
    for name in sorted(given):
        _check_field(config[name], f"{option}.{name}", allow_external, hints[name])


def _check_field(value: Any, option: str, allow_external: bool, hint: Any) -> None:
    """One part, parts by name, or a plain value."""
    if isinstance(value, DictConfig) and "_target_" in value:
        _check(value, option, allow_external, hint)
    elif not fits(_plain(value), hint):
        raise ConfigError(f"{option}={value!r} {_misfit(value, hint)}")
    elif isinstance(value, DictConfig) and typing.get_origin(hint) is Mapping:
        for name in value:
            _check_field(value[name], f"{option}.{name}", allow_external, typing.get_args(hint)[1])


def _is_a(cls: Any, kind: Any) -> bool:
    """Whether objects of a class are of the annotated type; a protocol asks for its members."""
    if kind is Any:
        return True
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_is_a(cls, argument) for argument in typing.get_args(kind))
    if getattr(kind, "_is_protocol", False):
        members = {*vars(kind), *kind.__annotations__}
        fields = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", ())}
        return {name for name in members if name[0] != "_"} <= {*dir(cls), *fields}
    return isinstance(kind, type) and isinstance(cls, type) and issubclass(cls, kind)


def _flat(error: Exception) -> str:
    """The message on one line."""
    return " ".join(str(error).split())


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value is of the annotated type (an int is a float, a bool is neither).

    NaN and the infinities are of none: no comparison with a bound would refuse NaN. Nor are whole
    numbers beyond 64 bits: no tensor or generator takes them.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return False
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if hint is None or hint is type(None):
        return value is None
    if origin in (list, Sequence):
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(item, Any) for item in value.values())
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, (int, float))
    # A part (a region, a proposer) is built from a mapping with a _target_, never a plain value.
    return not getattr(hint, "_is_protocol", False) and isinstance(value, hint)


def _misfit(value: Any, hint: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "is beyond 64 bits"
    return f"is not of type {_spell(hint)}"


def _spell(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join("null" if a is type(None) else _spell(a) for a in arguments)
    return getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)

"""Names of runs: the sampler and every option that differs from its default.

Two configurations that can give different results have different labels, but for the task and the
number of samples, which have columns of their own.
"""

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dllm.config import WITHOUT_EFFECT, choices, compose
from dllm.errors import ConfigError


_LONG = 60
_PLAIN = ("eos", "gen_length", "batch_size", "seed")


def label(config: DictConfig, name: str, swept: Sequence[str] = ()) -> str:
    """`name (option=value, ...)`: options of the sampler as they follow `sampler.`, all others by
    their full path. Of a sweep the swept ones come first, whatever their value."""
    found = _swept_first(options_of(config, name), config, swept, "sampler")
    return f"{name} ({', '.join(found)})" if found else name


def options_of(config: DictConfig, name: str) -> list[str]:
    """What differs from the defaults of `sampler=name`."""
    default = compose([f"sampler={name}"])
    found = _sampler(config.sampler, default.sampler)
    for group in ("cache", "constraint"):
        if config[group] != default[group]:
            found += _group(group, config[group], default[group])
    found += _model(config.model, default.model)
    return [*found, *(f"{key}={config[key]}" for key in _PLAIN if config[key] != default[key])]


def task_name(config: DictConfig, swept: Sequence[str] = ()) -> str:
    """The task's choice and the options that differ from its default or are swept."""
    name, default = option_of("task", config.task)
    found = _swept_first(differences(config.task, default), config, swept, "task")
    return f"{name} ({', '.join(found)})" if found else name


_ELSEWHERE = (*WITHOUT_EFFECT, "sampler", "task", "limit", "experiment", "debug")
"""What a row of a table shows without its label, or by other options."""


def _swept_first(found: list[str], config: DictConfig, swept: Sequence[str], own: str) -> list[str]:
    """Texts with those of the swept options in front; `own` is the group whose name is left out
    and whose options, or all but the task's, are meant."""
    first = []
    for option in swept:
        # `sampler/region`, `schedule@sampler.threshold` and `sampler.region` mean the same place.
        path = option.split("@")[-1].replace("/", ".")
        top = path.split(".")[0]
        belongs = top == "task" if own == "task" else top != "task"
        value = OmegaConf.select(config, path)
        if path in _ELSEWHERE or top in WITHOUT_EFFECT or not belongs or value is None:
            continue
        key = path.removeprefix(f"{own}.")
        text = next((t for t in found if t.startswith(f"{key}=")), f"{key}={_named(path, value)}")
        first.append(text)
    return [*first, *(text for text in found if text not in first)]


def _named(path: str, value: Any) -> Any:
    """A part by its name in `conf`."""
    if not isinstance(value, DictConfig):
        return _plain(value)
    if path == "model":
        return value.name
    if path.endswith(".base"):
        return _class(value).split(".")[-2]
    group, _, key = path.rpartition(".")
    return option_of(f"{group.split('.')[0]}/{key}" if group else path, value)[0]


def differences(config: DictConfig, default: DictConfig, prefix: str = "") -> list[str]:
    """`key=value` of everything in `config` that differs from `default`, parts by their dotted
    name; a part of another class by its name in `conf` and what differs from that."""
    found = []
    for key in config:
        ours, theirs = config[key], default.get(key)
        if isinstance(ours, DictConfig) and _class(ours) != _class(theirs):
            name, theirs = option_of(f"sampler/{key}", ours)
            if theirs is ours:
                # A schedule in place of a number, or a stranger's part: nothing else tells its
                # numbers.
                name, _ = option_of("schedule", ours)
                values = [f"{k}={_plain(v)}" for k, v in ours.items() if k != "_target_"]
                name = f"{name}({', '.join(values)})"
            found.append(f"{prefix}{key}={name}")
        if isinstance(ours, DictConfig) and isinstance(theirs, DictConfig):
            found += differences(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            found.append(f"{prefix}{key}={_plain(ours)}")
    return found


def option_of(group: str, part: DictConfig) -> tuple[str, DictConfig]:
    """Name and defaults of the group's option that the part differs least from; where none has its
    class, the class and the part itself."""
    found = []
    for name in choices(group):
        default = _defaults(group, name)
        if _class(default) == _class(part):
            changed = sum(part.get(key) != default.get(key) for key in part)
            found.append((changed, name, default))
    if not found:
        return str(_class(part)).rsplit(".", 1)[-1], part
    _, name, default = min(found, key=lambda option: option[:2])
    return name, default


def _defaults(group: str, name: str) -> DictConfig:
    """An option without the parts that it names, the options that it starts from included."""
    text = resources.files("conf").joinpath(group, f"{name}.yaml").read_text()
    own = OmegaConf.create(text)
    assert isinstance(own, DictConfig)
    bases = [b for b in own.pop("defaults", []) if isinstance(b, str) and b != "_self_"]
    merged = OmegaConf.merge(*(_defaults(group, base) for base in bases), own)
    assert isinstance(merged, DictConfig)
    return merged


def _sampler(sampler: DictConfig, default: DictConfig) -> list[str]:
    """Options of a sampler and of the one inside it."""
    found = differences(_alone(sampler), _alone(default))
    if "base" not in sampler:
        return found
    inside, ours = sampler.base, default.get("base")
    if _class(inside) == _class(ours):
        return found + [f"base.{text}" for text in _sampler(inside, ours)]
    name = _class(inside).split(".")[-2]
    try:
        ours = compose([f"sampler={name}"]).sampler
    except ConfigError:
        ours = inside
    return [*found, f"base={name}", *(f"base.{text}" for text in _sampler(inside, ours))]


def _group(group: str, part: DictConfig, default: DictConfig) -> list[str]:
    name, own = option_of(group, part)
    chosen = [] if option_of(group, default)[0] == name else [f"{group}={name}"]
    return chosen + differences(part, own, f"{group}.")


def _model(model: DictConfig, default: DictConfig) -> list[str]:
    name = str(model.name)
    chosen = [] if name == default.name else [f"model={name}"]
    own = _defaults("model", name) if name in choices("model") else default
    return chosen + [text for text in differences(model, own, "model.") if "model.name" not in text]


def _alone(sampler: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(sampler, [str(name) for name in sampler if name != "base"])


def _class(part: Any) -> str:
    return str(part.get("_target_")) if isinstance(part, DictConfig) else ""


def _plain(value: Any) -> Any:
    """Of a long text both ends: a label is a name, the configuration holds the whole. Its mark
    tells it from another one with the same ends."""
    if isinstance(value, str) and len(value) > _LONG:
        mark = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:6]
        return f"{value[: _LONG // 3]}...{value[-_LONG // 2 :]}#{mark}"
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

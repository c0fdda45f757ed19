"""The command line of a finished run, from its configuration."""

import shlex

from omegaconf import DictConfig

from dllm.config import choices, compose, fingerprint
from dllm.errors import ConfigError
from dllm.runs.labels import differences, option_of


_PLAIN = ("gen_length", "eos", "batch_size", "seed", "limit")


def command_of(config: DictConfig, sampler: str) -> str | None:
    """The command that decodes the same; None where options alone do not lead there (a part of
    somebody's own, say)."""
    found = [f"sampler={sampler}"]
    try:
        default = compose(found)
        for group in ("model", "cache", "constraint", "task"):
            name, _ = option_of(group, config[group])
            if config[group] != default[group]:
                found.append(f"{group}={name}")
        default = compose(found)
        for group in ("sampler", "model", "cache", "constraint", "task"):
            found += map(_spelled, differences(config[group], default[group], f"{group}."))
        found += [_spelled(f"{k}={config[k]}") for k in _PLAIN if config[k] != default[k]]
        if fingerprint(compose(found)) != fingerprint(config):
            return None
    except ConfigError:
        return None
    return shlex.join(["python", "-m", "scripts.run", *dict.fromkeys(found)])


def _spelled(difference: str) -> str:
    """As Hydra reads it: parts are chosen by `sampler/region=NAME`."""
    key, _, value = difference.partition("=")
    group = key.replace(".", "/")
    if value in choices(group):
        return f"{group}={value}"
    return f"{key}={'null' if value == 'None' else value}"

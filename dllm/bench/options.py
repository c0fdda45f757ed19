"""Options of `scripts.run` that a bench is given: what it would not heed is refused."""

import re
from collections.abc import Sequence

from dllm.config import check_options, compose


def chosen(options: Sequence[str]) -> list[str]:
    """Top-level keys that the options name or change. Raises `ConfigError` for options that
    `scripts.run` would refuse."""
    default, config = compose(), compose(options)
    check_options(config)
    changed = [str(key) for key in config if config[key] != default.get(key)]
    named = [re.split("[=./@:]", option.lstrip("+~"), maxsplit=1)[0] for option in options]
    return list(dict.fromkeys([*named, *changed]))

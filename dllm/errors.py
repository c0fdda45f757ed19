"""The two kinds of failure a user can meet; everything else is a bug and keeps its traceback."""

import re


class ConfigError(ValueError):
    """The user can fix it: names the option, its value and what is allowed. Exit code 2."""


class RunError(RuntimeError):
    """The run could not go on (disk full, broken numbers). Exit code 1."""


def inside(message: str) -> str:
    """A sampler's message with the options' paths as typed where it is the `base` of another."""
    message = re.sub(r"\bsampler/(\w+)\b(?!@)", r"sampler/\1@sampler.\1", message)
    return re.sub(r"\bsampler\.", "sampler.base.", message)

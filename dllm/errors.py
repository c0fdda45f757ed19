"""The two kinds of failure a user can meet; everything else is a bug and keeps its traceback."""


class ConfigError(ValueError):
    """The user can fix it: names the option, its value and what is allowed. Exit code 2."""


class RunError(RuntimeError):
    """The run could not go on (disk full, broken numbers). Exit code 1."""

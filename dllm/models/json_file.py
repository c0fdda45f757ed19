"""JSON files of a checkpoint folder, which may have been written by any program."""

import json
from pathlib import Path
from typing import Any

from dllm.errors import ConfigError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises `ConfigError` naming the file if it can't be read, is no JSON or holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {_kind(value)}, not an object")
    return value


def read_optional(path: Path) -> dict[str, Any]:
    """As `read_object`; empty where there is no such file."""
    return read_object(path) if path.exists() else {}


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), repr(value))

"""Training state on disk: written whole or not at all, read back with weights_only."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dllm.errors import ConfigError, RunError
from dllm.runs.checkpoint import file_hash


NAME = "state.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replaces the previous state atomically, so a kill leaves either the old or the new one.

    Raises `RunError` where the disk refuses.
    """
    partial = folder / f"{NAME}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            _write(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder / NAME)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{folder / NAME} can't be written: {error.strerror or error}") from None


def _write(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # its own words for what the system refused meanwhile
        raise error.__context__ or error from None


def load_state(folder: Path, recipe: dict[str, str]) -> dict[str, Any] | None:
    """The last saved state, None where there is none.

    Raises `ConfigError` if it is one of another recipe: to go on with it would be neither of both.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        made, step = state["recipe"], state["step"]
    except Exception:  # damaged bytes: the reader fails in any way
        raise ConfigError(f"{path} is damaged: remove it or choose another folder") from None
    # What a state does not tell was no part of recipes when it was saved.
    for name in sorted(made):
        if made[name] != recipe.get(name):
            raise ConfigError(
                f"output={folder} holds a training with {name}={made[name]}, this one has "
                f"{recipe.get(name)}: choose another folder"
            )
    if step > int(recipe["total_steps"]):
        raise ConfigError(
            f"output={folder} holds a training of {step} steps, "
            f"total_steps={recipe['total_steps']} are fewer: choose another folder"
        )
    return state


class Course:
    """A training in a folder: its last saved state, and its recipe, which the state keeps."""

    def __init__(self, folder: Path, facts: dict[str, str]) -> None:
        """Raises `ConfigError` as `load_state`."""
        self.folder, self.facts = folder, facts
        self.state = load_state(folder, facts)

    @property
    def done(self) -> int:
        """Steps of the saved state."""
        return 0 if self.state is None else self.state["step"]

    def save(self, state: dict[str, Any]) -> None:
        self.state = {**state, "recipe": self.facts}
        save_state(self.folder, self.state)


_REPORTING = (
    "log_every",
    "save_minutes",
    "eval_minutes",
    "eval_items",
    "compile",
    "lanes",
    "device",
    "workers",
)
"""Fields of recipes that don't change what is learnt (rounding aside)."""


def start_mark(start: str | None) -> str | None:
    """Hash of the weights that a training begins with."""
    path = Path(start or "") / "model.safetensors"
    return file_hash(path) if path.is_file() else None


def recipe_facts(recipe: Any, **more: Any) -> dict[str, str]:
    """What determines the result of a training, as text."""
    facts = {k: v for k, v in asdict(recipe).items() if k not in _REPORTING} | more
    return {name: repr(value) for name, value in facts.items()}

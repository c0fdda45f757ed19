"""Training state on disk: written whole or not at all, read back with weights_only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.optim import Optimizer

from dllm.errors import ConfigError, RunError
from dllm.runs.checkpoint import file_hash
from dllm.runs.identity import code_of


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


def load_state(folder: Path, recipe: dict[str, str], trains: bool = True) -> dict[str, Any] | None:
    """The last saved state, None where there is none.

    Raises `ConfigError` if it is one of another recipe: to go on with it would be neither of both;
    and, where it is to go on (`trains`), if it was made by other code.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        made, step = state["recipe"], state["step"]
        if type(step) is not int or step < 0:
            raise ValueError(step)
        edited = _edited(made.get(_CODE), recipe.get(_CODE)) if trains else []
    except Exception:  # damaged bytes: the reader fails in any way
        raise ConfigError(_damaged(path)) from None
    # What a state does not tell was no part of recipes when it was saved.
    if edited:
        more = f" and {len(edited) - 3} more" if len(edited) > 3 else ""
        raise ConfigError(
            f"output={folder} holds a training by other code, edited since: "
            f"{', '.join(edited[:3])}{more}: choose another folder"
        )
    for name in sorted(made.keys() - {_CODE}):
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


def _damaged(path: Path) -> str:
    return f"{path} is damaged: remove it or choose another folder"


@contextmanager
def taken_over(folder: Path) -> Iterator[None]:
    """Within it the state of the folder is taken apart: one that lacks something, or holds another
    thing in its place, is a `ConfigError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise ConfigError(_damaged(folder / NAME)) from None


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Raises `ValueError` for a state of other parameters, which torch would take until the next
    step."""
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for tensor in kept.values():
            if isinstance(tensor, Tensor) and tensor.ndim and tensor.shape != parameter.shape:
                raise ValueError(f"{tuple(tensor.shape)} for {tuple(parameter.shape)}")


def same_keys(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers `found`, if they are those that are wanted; else `ValueError`."""
    numbers = all(isinstance(value, int | float) for value in found.values())
    if found.keys() != wanted.keys() or not numbers:
        raise ValueError(f"{sorted(found)} for {sorted(wanted)}")
    return dict(found)


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


_CODE = "code"


def recipe_facts(recipe: Any, modules: Iterable[str] = (), **more: Any) -> dict[str, str]:
    """What determines the result of a training, as text: options, whatever `more` tells of the
    data, and the code of the recipe's classes, of `modules` and of all that they import."""
    facts = {k: v for k, v in asdict(recipe).items() if k not in _REPORTING} | more
    code = _code(tuple(sorted({*_modules(recipe), *modules})))
    return {**{name: repr(value) for name, value in facts.items()}, _CODE: code}


def _modules(part: Any) -> Iterator[str]:
    """Modules of the classes that a recipe is made of."""
    if is_dataclass(part):
        yield type(part).__module__
        part = vars(part)
    if isinstance(part, Mapping):
        for value in part.values():
            yield from _modules(value)


@cache  # what this process executes, it has imported
def _code(modules: Sequence[str]) -> str:
    return json.dumps({name: file_hash(path) for name, path in code_of(modules).items()})


def _edited(made: str | None, ours: str | None) -> list[str]:
    """Names of the modules that differ; of a state that tells none, none."""
    before, now = json.loads(made or "{}"), json.loads(ours or "{}")
    return sorted(name for name in before if before[name] != now.get(name))

"""Training state on disk: written whole or not at all, read back with weights_only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


NAME = "state.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replaces the previous state atomically, so a kill leaves either the old or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{NAME}.partial"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / NAME)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The last saved state, None where there is none."""
    path = folder / NAME
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None

"""Which folder is the checkpoint that a trace names.

Folders that were asked for come first, then the one beside the trace (`../models`), then the
fallback. Folders of the same rank that hold it with different content leave no choice: refused.
"""

import filecmp
from collections.abc import Sequence
from pathlib import Path

from dllm.conform.recorded import Places
from dllm.errors import ConfigError


def find(name: str, trace: Path, places: Places) -> Path:
    ranks = (places.checkpoints, (trace.parent.parent / "models",), places.fallback)
    for folders in ranks:
        found = _candidates(name, folders)
        for other in found[1:]:
            if not _alike(found[0], other):
                raise ConfigError(
                    f"checkpoint {name} differs between {found[0]} and {other}: "
                    "name one folder by --checkpoints"
                )
        if found:
            return found[0]
    looked = ", ".join(str(folder) for folders in ranks for folder in folders)
    raise ConfigError(f"checkpoint {name} is in none of {looked}: name its folder by --checkpoints")


def _candidates(name: str, folders: Sequence[Path]) -> list[Path]:
    """In each folder, or the folder itself."""
    inside = (path for folder in folders for path in (folder / name, folder))
    return [path for path in inside if path.name == name and (path / "config.json").is_file()]


def _alike(one: Path, other: Path) -> bool:
    """Whether loading reads the same of both: configuration and tensors."""
    names, others = _read(one), _read(other)
    return names == others and not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])


def _read(folder: Path) -> list[str]:
    files = (path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    return sorted(path.name for path in files if path.is_file())

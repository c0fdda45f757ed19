"""Which folder is the checkpoint that a trace names.

Folders that were asked for come first, then the one beside the trace (`../models`), then the
fallback. Folders of the same rank that hold it with different content leave no choice: refused.
"""

from collections.abc import Sequence
from pathlib import Path

from dllm.conform.recorded import Places
from dllm.errors import ConfigError


def find(name: str, trace: Path, places: Places) -> Path:
    ranks = (places.checkpoints, (trace.parent.parent / "models",), places.fallback)
    for folders in ranks:
        found = _candidates(name, folders)
        for other in found[1:]:
            if _content(found[0]) != _content(other):
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


def _content(folder: Path) -> dict[str, bytes]:
    """What loading reads: configuration and tensors."""
    files = (path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    return {path.name: path.read_bytes() for path in files}

"""What a run depends on besides its configuration: versions, commit, device, the checkpoint
itself."""

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "hydra-core", "numpy")
_SAMPLED_BYTES = 1 << 20


def describe(checkpoint: Path, device: str) -> dict[str, Any]:
    """Contents of environment.json; no paths, no times."""
    accelerated = device != "cpu" and torch.cuda.is_available()
    name = torch.cuda.get_device_name() if accelerated else platform.machine()
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "commit": _commit(),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "checkpoint": checkpoint_identity(checkpoint),
    }


def checkpoint_identity(folder: Path) -> str:
    """Hash over the files' names, sizes and first and last MiB: tells checkpoints apart without
    reading gigabytes."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("model*.safetensors")]):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with open(path, "rb") as file:
            digest.update(file.read(_SAMPLED_BYTES))
            file.seek(max(size - _SAMPLED_BYTES, 0))
            digest.update(file.read(_SAMPLED_BYTES))
    return digest.hexdigest()[:16]


def _commit() -> str | None:
    """Commit of the working copy, None when installed from a wheel."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()

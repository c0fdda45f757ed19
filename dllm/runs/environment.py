"""Where a run was made: versions, commit, device."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "hydra-core", "numpy")


def describe(device: str) -> dict[str, Any]:
    """Contents of environment.json; no paths, no times."""
    accelerated = device != "cpu" and torch.cuda.is_available()
    name = torch.cuda.get_device_name() if accelerated else platform.machine()
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "commit": _commit(),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    """None where it was put there without its metadata."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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

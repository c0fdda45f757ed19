"""What an oracle pass records for filter training, in shards on disk.

One record per oracle forward and block: confidences of all positions and labels [arg-max =
reference]. A shard is one safetensors file, written whole or not at all,
with the sample ids and the settings in its header: a collection stopped at any moment goes on
where it was.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.tensor_file import write_tensors


_HEADER = ("facts", "samples")


@dataclass(frozen=True)
class Record:
    """One forward of the oracle on one block."""

    sample_id: str
    block: int
    step: int
    """Within the block, from 0."""
    confidence: Float[Tensor, "block"]
    """What the filter will see: confidences, or negative entropies (`feature` of the facts)."""
    final: Bool[Tensor, "block"]


@dataclass(frozen=True)
class Records:
    """All records of a collection."""

    sample: Int[Tensor, "records"]
    """Number of the sample a record comes from."""
    confidence: Float[Tensor, "records block"]
    final: Bool[Tensor, "records block"]
    facts: Mapping[str, Any]
    """Settings of the collection."""

    @property
    def mark(self) -> str:
        """Hash of the records, 16 hex digits."""
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True, default=str).encode())
        for tensor in (self.sample, self.confidence, self.final):
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


class RecordShards:
    """The shards of one folder; all must have been made with the same settings."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]):
        self.folder, self.facts = folder, dict(facts)
        for path in self._paths():
            made = _header(path)["facts"]
            for name in sorted(set(made) | set(self.facts)):
                if made.get(name) != self.facts.get(name):
                    raise ConfigError(
                        f"output={folder} holds records with {name}={made.get(name)}, this run has "
                        f"{self.facts.get(name)}: choose another folder"
                    )

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("shard-*.safetensors"))

    def done(self) -> set[str]:
        """Samples whose records are on disk."""
        return {sample for path in self._paths() for sample in _header(path)["samples"]}

    def append(self, samples: Sequence[str], records: Sequence[Record]) -> Path:
        """Writes one shard of complete samples."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = {sample: index for index, sample in enumerate(samples)}
        tensors = {
            "sample": torch.tensor([number[r.sample_id] for r in records]),
            "block": torch.tensor([r.block for r in records]),
            "step": torch.tensor([r.step for r in records]),
            "confidence": torch.stack([r.confidence.float().cpu() for r in records]),
            "final": torch.stack([r.final.cpu() for r in records]),
        }
        # Behind the last one, not by their number: one may have been taken away.
        last = max((int(path.stem.split("-")[1]) for path in self._paths()), default=-1)
        path = self.folder / f"shard-{last + 1:05d}.safetensors"
        header = {"facts": json.dumps(self.facts), "samples": json.dumps(list(samples))}
        partial = path.with_suffix(".partial")
        write_tensors(partial, tensors, header)
        os.replace(partial, path)
        return path


def load_records(folder: Path) -> Records:
    """Raises `ConfigError` for a folder without shards."""
    paths = sorted(folder.glob("shard-*.safetensors"))
    if not paths:
        raise ConfigError(
            f"data={folder} holds no records: python -m scripts.collect output={folder}"
        )
    facts = _header(paths[0])["facts"]
    RecordShards(folder, facts)
    parts: dict[str, list[Tensor]] = {"sample": [], "confidence": [], "final": []}
    before, seen = 0, set[str]()
    for path in paths:
        samples = _header(path)["samples"]
        with safe_open(path, framework="pt") as file:
            for name, found in parts.items():
                tensor = file.get_tensor(name)
                found.append(tensor + before if name == "sample" else tensor)
        if twice := seen.intersection(samples):
            raise ConfigError(f"data={folder}: {path.name} holds {min(twice)} a second time")
        seen.update(samples)
        before += len(samples)
    joined = {name: torch.cat(found) for name, found in parts.items()}
    return Records(joined["sample"], joined["confidence"], joined["final"], facts)


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: json.loads((file.metadata() or {})[name]) for name in _HEADER}
    except (OSError, SafetensorError, LookupError, ValueError):
        raise ConfigError(f"{path} is damaged or holds no records") from None

"""What a tracker receives. The run folder is the truth; a tracker shows the same numbers
elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class RunInfo:
    """Identity of a run."""

    folder: Path
    fingerprint: str
    label: str
    """Name shown to people: sampler and the options that differ from its default."""
    config: Mapping[str, Any]
    group: str | None = None
    """Name of the sweep the run belongs to."""
    tags: Sequence[str] = ()


class Tracker(Protocol):
    def start(self, run: RunInfo) -> None: ...

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        """Scalars at position `step` of the axis named `axis` (e.g. sample, denoising_step)."""
        ...

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """One table, all rows with the same keys."""
        ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def finish(self) -> None: ...

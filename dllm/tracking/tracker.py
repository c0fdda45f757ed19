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
    job: str = "train"
    """Else decode, baseline or control."""


class Tracker(Protocol):
    @property
    def destination(self) -> Mapping[str, str | None] | None:
        """Where runs are sent: one that is there already is not sent again. None = nowhere."""
        ...

    def check(self) -> None:
        """Raises `ConfigError` for what `start` would fail of, before any work is done."""
        ...

    def start(self, run: RunInfo) -> None:
        """Begins a run, beside what the caller does next: what fails is raised by the first call
        that sends something."""
        ...

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        """Scalars at position `step` of the axis named `axis` (e.g. sample, denoising_step)."""
        ...

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """One table, all rows with the same keys."""
        ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def attach(self, name: str, files: Sequence[Path]) -> None:
        """Files kept with the run under this name; pictures and pages are shown, too."""
        ...

    def finish(self) -> None: ...

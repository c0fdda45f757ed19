"""One row of a suite on one task: an ordinary run, in the folder that `scripts.run` would use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from dllm.config import compose
from dllm.metrics.definitions import SampleResult
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


_QUIET = ("tracker=none", "progress=false", "trace=false", "baseline=false")


@dataclass(frozen=True)
class Cell:
    """What a run left behind; samples in the same order for every row of a task."""

    metrics: Mapping[str, Any]
    samples: Sequence[SampleResult]
    folder: RunFolder
    control: "Cell | None" = None
    """The run that the sampler itself asks to be compared with."""

    @classmethod
    def of(cls, folder: RunFolder, summary: Mapping[str, Any]) -> Self:
        control = None
        if (beside := summary.get("control")) is not None:
            (path,) = folder.path.parents[1].glob(f"*/{beside['fingerprint']}")
            control = cls.of(RunFolder(path), beside)
        samples = sorted(folder.samples(), key=lambda sample: sample.id)
        return cls(summary["metrics"], samples, folder, control)

    @property
    def accuracy(self) -> float:
        return self.metrics["accuracy"]

    @property
    def nfe(self) -> float:
        """Forwards per sample."""
        return self.metrics["nfe"]

    @cached_property
    def grades(self) -> list[bool]:
        return [bool(sample.correct) for sample in self.samples]


def measure(options: Sequence[str]) -> Cell:
    """Decodes what is missing of the run. Raises `ConfigError` for what can't be decoded."""
    config = compose([*_QUIET, *options])
    chosen = next(o for o in reversed(options) if o.startswith("sampler="))
    path, summary = execute(config, chosen.removeprefix("sampler="))
    return Cell.of(RunFolder(Path(path)), summary)

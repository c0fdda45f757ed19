"""Runs as their folders hold them; nothing is decoded."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dllm.errors import ConfigError
from dllm.metrics.definitions import SampleResult, Summary
from dllm.models.json_file import read_object
from dllm.report.bits import RunBits
from dllm.report.cells import Cell
from dllm.report.recipe import recipe
from dllm.runs.folder import SUPERSEDED, RunFolder


@dataclass(frozen=True)
class Run:
    """A finished run. Every number is worked out anew from its samples, so that runs of different
    versions are measured alike."""

    folder: RunFolder
    summary: dict[str, Any]
    config: DictConfig
    samples: Sequence[SampleResult]
    """By id."""

    @classmethod
    def of(cls, path: Path) -> "Run":
        """Raises `ConfigError` for what is no finished run."""
        for name, why in (
            ("config.yaml", "is no run folder"),
            ("summary.json", "is not finished (its own command goes on with it)"),
        ):
            if not (path / name).exists():
                raise ConfigError(f"{path} {why}: it has no {name}")
        folder = RunFolder(path)
        samples = sorted(folder.samples(), key=lambda sample: sample.id)
        if not samples:
            raise ConfigError(f"{path} has no finished samples")
        summary = folder.summary()
        if lacking := sorted({"label", "fingerprint", "task"} - summary.keys()):
            raise ConfigError(f"{path / 'summary.json'} holds no {lacking[0]}")
        return cls(folder, summary, folder.config(), samples)

    @property
    def label(self) -> str:
        return self.summary["label"]

    @property
    def fingerprint(self) -> str:
        return self.summary["fingerprint"]

    @property
    def task(self) -> str:
        return self.summary["task"]

    @cached_property
    def metrics(self) -> Summary:
        return Summary.of(self.samples)

    @cached_property
    def graded(self) -> Cell:
        """With the samples alone that have a grade."""
        samples = [sample for sample in self.samples if sample.correct is not None]
        return Cell(asdict(self.metrics), samples, self.folder)

    @cached_property
    def bits(self) -> RunBits | None:
        """None without traces that hold probabilities."""
        try:
            return RunBits.of(self.folder)
        except ConfigError:
            return None

    @cached_property
    def recipe(self) -> dict[str, str]:
        return recipe(self.config, self._json("identity.json"), self._json("environment.json"))

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder.path / name
        return read_object(path) if path.exists() else {}

    def questions(self) -> tuple[tuple[str, str], ...]:
        """What has to be the same for two runs to be compared."""
        return tuple((sample.id, sample.prompt) for sample in self.samples)

    def beside(self, kind: str) -> Path | None:
        """Folder of its `baseline` or `control`, None where it has none, or not any more."""
        other = self.summary.get(kind)
        if other is None:
            return None
        if other["fingerprint"] == self.fingerprint:
            return self.folder.path
        places = self.folder.path.parents[1].glob(f"*/{other['fingerprint']}/summary.json")
        return next((path.parent for path in places), None)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs that the paths hold, each once, then the baselines and controls that they name.

    Raises `ConfigError` for a path without runs.
    """
    folders = dict.fromkeys(folder.resolve() for path in paths for folder in _folders(path))
    runs = {folder: Run.of(folder) for folder in folders}
    for run in list(runs.values()):
        for kind in ("baseline", "control"):
            folder = run.beside(kind)
            if folder is not None and folder not in runs:
                runs[folder] = Run.of(folder)
    return list(runs.values())


def _folders(path: Path) -> Iterator[Path]:
    if (path / "config.yaml").exists():
        yield path
        return
    if (path / "jobs.jsonl").exists():
        yield from _of_sweep(path)
        return
    found = sorted(
        summary.parent
        for summary in path.rglob("summary.json")
        if (summary.parent / "config.yaml").exists() and SUPERSEDED not in summary.parts
    )
    if not found and any(path.rglob("samples.jsonl")):
        raise ConfigError(f"{path} holds no finished run (a run's own command goes on with it)")
    if not found:
        raise ConfigError(f"{path} is no run folder and holds none")
    yield from found


def _of_sweep(path: Path) -> Iterator[Path]:
    """Folders are noted as the sweep saw them: from where it was started, or beside the sweep's."""
    try:
        jobs = [json.loads(line) for line in (path / "jobs.jsonl").read_text().splitlines()]
        folders = [Path(job["folder"]) for job in jobs if "folder" in job]
    except (ValueError, TypeError):
        raise ConfigError(f"{path / 'jobs.jsonl'} is damaged: name the runs themselves") from None
    if not folders:
        raise ConfigError(f"{path} is a sweep without a finished job")
    for folder in folders:
        yield folder if folder.exists() else path.parents[1].joinpath(*folder.parts[-2:])

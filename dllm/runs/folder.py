"""A run's folder: what it holds, how it survives a kill, who may write it.

config.yaml       resolved configuration
identity.json     hashes of all that decides the result
environment.json  versions, commit, device
samples.jsonl     one line per finished sample, appended and flushed
traces.jsonl.gz   every decision (optional)
summary.json      written last, by replacing
"""

import json
import os
import shutil
import typing
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from math import isfinite
from pathlib import Path
from typing import Any

from dllm.config import fits
from dllm.errors import ConfigError, RunError
from dllm.metrics.definitions import SampleResult
from dllm.runs.lock import locked
from dllm.step.trace import Trace, pack_traces, read_traces


SUPERSEDED = "superseded"
"""Beside the runs of a sampler: those of the same options that other code, another model or other
data made."""


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self._samples = path / "samples.jsonl"
        self._traces = path / "traces.jsonl.gz"

    @contextmanager
    def locked(self, wait_minutes: float) -> Iterator[None]:
        """Creates the folder and keeps other processes out, or waits until they have left.

        Raises `ConfigError` if it can't be written, `RunError` if another process keeps it longer.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with locked(lock, wait_minutes, str(self.path)):
                self.path.mkdir(exist_ok=True)
                try:
                    yield
                finally:
                    # A run that was refused before it began leaves no folder.
                    if not any(self.path.iterdir()):
                        self.path.rmdir()
                    lock.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"output={self.path} is not writable: {error.strerror}") from None

    def supersede(self, identity: Mapping[str, Any]) -> Iterator[Path]:
        """Moves runs of the same options with another identity out of the way, so that what lies
        beside each other was made by the same code; gives their new places. One that is being
        written stays."""
        for path in sorted(self.path.parent.glob("*/identity.json")):
            other = path.parent
            made = json.loads(path.read_text())
            if other == self.path or made.get("configuration") != identity["configuration"]:
                continue
            target = other.parent / SUPERSEDED / other.name
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            try:
                with RunFolder(other).locked(0):
                    os.replace(other, target)
                    other.mkdir()
            except RunError:
                continue
            yield target

    def identity(self) -> dict[str, Any]:
        return json.loads((self.path / "identity.json").read_text())

    def write_identity(self, identity: Mapping[str, Any]) -> None:
        self._replace("identity.json", json.dumps(identity, indent=2) + "\n")

    def write_config(self, text: str) -> None:
        self._replace("config.yaml", text)

    def write_environment(self, environment: Mapping[str, Any]) -> list[str]:
        """Stores the environment of the last start; returns what differs from the one before."""
        path = self.path / "environment.json"
        before = json.loads(path.read_text()) if path.exists() else environment
        self._replace(path.name, json.dumps(environment, indent=2) + "\n")
        return [name for name, value in environment.items() if before.get(name) != value]

    def samples(self) -> list[SampleResult]:
        """Finished samples; a line that is cut off or damaged does not count."""
        return [result for line in self._lines() if (result := _parsed(line)) is not None]

    def _lines(self) -> list[bytes]:
        """Whole lines."""
        if not self._samples.exists():
            return []
        return self._samples.read_bytes().split(b"\n")[:-1]

    def clear(self) -> None:
        """Forgets every finished sample."""
        for path in (self._samples, self._traces, self.path / "summary.json"):
            path.unlink(missing_ok=True)

    def append(self, sample: SampleResult, trace: Trace | None = None) -> None:
        """Adds a finished sample so that it survives a kill right after.

        Raises `RunError` if the disk refuses; nothing half-written stays.
        """
        # The sample's line is what makes it finished, so that it comes last.
        if trace is not None:
            _append(self._traces, pack_traces([trace]))
        _append(self._samples, _line(sample))

    def traces(self) -> list[Trace]:
        return list(read_traces(self._traces)) if self._traces.exists() else []

    def repair(self, wanted: Collection[str], traced: bool) -> list[str]:
        """Drops what can't be gone on with, so that it is decoded again: lines that are damaged or
        of no wanted sample, and, where traces are asked for, samples without one. Returns what to
        tell about it; what a kill leaves (a line or a trace cut off) is not worth a word."""
        kept: dict[str, SampleResult] = {}
        lines, notes = self._lines(), []
        for line in lines:
            result = _parsed(line)
            if result is not None and result.id in wanted:
                kept.setdefault(result.id, result)
        if len(kept) < len(lines):
            notes.append(f"{len(lines) - len(kept)} lines of {self._samples} are damaged")
        traces = {trace.sample_id: trace for trace in self.traces() if trace.sample_id in kept}
        if traced and (lost := kept.keys() - traces.keys()):
            notes.append(f"{len(lost)} samples of {self.path} have no trace")
            kept = {name: result for name, result in kept.items() if name not in lost}
        self._rewrite(self._samples, b"".join(_line(result) for result in kept.values()))
        self._rewrite(self._traces, b"".join(pack_traces([trace]) for trace in traces.values()))
        return [f"{note}: decoded again" for note in notes]

    def _rewrite(self, path: Path, data: bytes) -> None:
        if path.exists() and path.read_bytes() != data:
            self._replace(path.name, data)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        text = json.dumps(_strict(summary), indent=2, allow_nan=False)
        self._replace("summary.json", text + "\n")

    def summary(self) -> dict[str, Any]:
        return json.loads((self.path / "summary.json").read_text())

    def _replace(self, name: str, data: str | bytes) -> None:
        temporary = self.path / f".{name}.tmp"
        try:
            temporary.write_bytes(data.encode() if isinstance(data, str) else data)
            os.replace(temporary, self.path / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunError(f"{self.path / name} can't be written: {error.strerror}") from None


_HINTS = typing.get_type_hints(SampleResult)
_REQUIRED = {field.name for field in fields(SampleResult) if field.default is MISSING}


def _line(result: SampleResult) -> bytes:
    return (json.dumps(asdict(result), allow_nan=False) + "\n").encode()


def _parsed(line: bytes) -> SampleResult | None:
    """None for a line that is no result."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if (
        not isinstance(values, dict)
        or not values.keys() <= _HINTS.keys()
        or not values.keys() >= _REQUIRED
    ):
        return None
    return SampleResult(**values) if all(fits(v, _HINTS[k]) for k, v in values.items()) else None


def _strict(value: Any) -> Any:
    """JSON has no word for a number that is none: null."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value


def _append(path: Path, data: bytes) -> None:
    """Adds all of `data` or nothing."""
    size = path.stat().st_size if path.exists() else 0
    try:
        # Unbuffered: a buffered file would write the refused rest once more when it is closed.
        with open(path, "ab", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
    except OSError as error:
        if path.exists():
            os.truncate(path, size)
        raise RunError(f"{path} can't be written: {error.strerror}") from None


def point_latest(output: Path, folder: Path) -> None:
    """Makes `<output>/latest` a link to the folder; where that can't be, it is left out."""
    temporary = output / f".latest-{os.getpid()}"
    try:
        temporary.symlink_to(os.path.relpath(folder, output), target_is_directory=True)
        os.replace(temporary, output / "latest")
    except OSError:
        temporary.unlink(missing_ok=True)

"""A run's folder: what it holds, how it survives a kill, who may write it.

config.yaml       resolved configuration
environment.json  versions, commit, device, identity of the checkpoint
samples.jsonl     one line per finished sample, appended and flushed
traces.jsonl.gz   every decision (optional)
summary.json      written last, by replacing
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dllm.errors import ConfigError, RunError
from dllm.metrics.definitions import SampleResult
from dllm.step.trace import Trace, pack_traces, read_traces


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self._samples = path / "samples.jsonl"
        self._traces = path / "traces.jsonl.gz"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder and keeps other processes out.

        Raises `ConfigError` if it can't be written or another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held by the with below
        except OSError as error:
            raise ConfigError(f"output={self.path} is not writable: {error.strerror}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{self.path} is being written by another process") from None
            try:
                yield
            finally:
                self._remove_if_unused()

    def _remove_if_unused(self) -> None:
        """A run that was refused before it began leaves no folder."""
        if [entry.name for entry in self.path.iterdir()] == [".lock"]:
            shutil.rmtree(self.path)

    def write_config(self, text: str) -> None:
        self._replace("config.yaml", text)

    def write_environment(self, environment: Mapping[str, Any]) -> list[str]:
        """Stores the environment of the first start; returns what differs on a later one.

        Raises `ConfigError` if the finished samples come from another checkpoint.
        """
        path = self.path / "environment.json"
        if not path.exists():
            self._replace(path.name, json.dumps(environment, indent=2) + "\n")
            return []
        before = json.loads(path.read_text())
        if before["checkpoint"] != environment["checkpoint"] and self.samples():
            raise ConfigError(
                f"{self.path} holds samples of another checkpoint: remove it or set output=..."
            )
        changed = [k for k, v in environment.items() if before.get(k) != v]
        if changed:
            self._replace(path.name, json.dumps(environment, indent=2) + "\n")
        return changed

    def samples(self) -> list[SampleResult]:
        """Finished samples; a line cut off by a kill does not count."""
        if not self._samples.exists():
            return []
        lines = self._samples.read_bytes().split(b"\n")[:-1]
        return [SampleResult(**json.loads(line)) for line in lines]

    def append(self, sample: SampleResult, trace: Trace | None = None) -> None:
        """Adds a finished sample so that it survives a kill right after.

        Raises `RunError` if the disk refuses; nothing half-written stays.
        """
        # The sample's line is what makes it finished, so that it comes last.
        if trace is not None:
            _append(self._traces, pack_traces([trace]))
        _append(self._samples, (json.dumps(asdict(sample)) + "\n").encode())

    def traces(self) -> list[Trace]:
        return list(read_traces(self._traces)) if self._traces.exists() else []

    def drop_unfinished(self) -> None:
        """Removes what a kill left: a cut last line, and the trace of a sample without its line."""
        if self._samples.exists():
            data = self._samples.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.truncate(self._samples, whole)
        if self._traces.exists():
            done = {sample.id for sample in self.samples()}
            kept = b"".join(pack_traces([t]) for t in self.traces() if t.sample_id in done)
            if kept != self._traces.read_bytes():
                self._replace(self._traces.name, kept)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self._replace("summary.json", json.dumps(summary, indent=2) + "\n")

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

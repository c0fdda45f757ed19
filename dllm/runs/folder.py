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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dllm.errors import ConfigError, RunError
from dllm.metrics.definitions import SampleResult


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self._samples = path / "samples.jsonl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder and keeps other processes out.

        Raises `ConfigError` if it can't be written or another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "w")
        except OSError as error:
            raise ConfigError(f"output={self.path} is not writable: {error.strerror}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{self.path} is being written by another process") from None
            yield

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

    def append(self, samples: list[SampleResult]) -> None:
        """Adds finished samples so that they survive a kill right after.

        Raises `RunError` if the disk refuses; nothing half-written stays.
        """
        data = "".join(json.dumps(asdict(sample)) + "\n" for sample in samples).encode()
        with open(self._samples, "ab") as file:
            size = file.tell()
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                os.truncate(self._samples, size)
                raise RunError(f"{self._samples} can't be written: {error.strerror}") from None

    def drop_partial_line(self) -> None:
        """Removes what a kill left after the last complete line."""
        if self._samples.exists():
            data = self._samples.read_bytes()
            os.truncate(self._samples, data.rfind(b"\n") + 1)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self._replace("summary.json", json.dumps(summary, indent=2) + "\n")

    def summary(self) -> dict[str, Any]:
        return json.loads((self.path / "summary.json").read_text())

    def _replace(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.tmp"
        try:
            temporary.write_text(text)
            os.replace(temporary, self.path / name)
        except OSError as error:
            raise RunError(f"{self.path / name} can't be written: {error.strerror}") from None

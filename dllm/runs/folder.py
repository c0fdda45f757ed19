"""A run's folder: what it holds, how it survives a kill, who may write it.

config.yaml       resolved configuration
identity.json     hashes of all that decides the result
environment.json  versions, commit, device
samples.jsonl     one line per finished sample, appended and flushed
traces.jsonl.gz   every decision (optional)
summary.json      written last, by replacing
tracked.json      where the finished run was sent
ranks/<n>/        the same files of samples and traces, of the n-th process of several, until the
                  first one has gathered them
"""

import json
import os
import shutil
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import MISSING, asdict, fields
from math import isfinite
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dllm.config import fingerprint, fits
from dllm.errors import ConfigError, RunError
from dllm.metrics.definitions import SampleResult
from dllm.models.json_file import read_object
from dllm.runs.lock import locked, usable
from dllm.step.trace import Trace, pack_traces, parsed_traces, read_traces


_TRACKED = "tracked.json"

_RANKS = "ranks"

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

        Raises `ConfigError` if it can't be written, `RunError` if another process keeps it longer
        or the system refuses one of its files later.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        with ExitStack() as held:
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(lock, wait_minutes, str(self.path)))
                self.path.mkdir(exist_ok=True)
            except OSError as error:
                raise ConfigError(f"output={self.path} is not writable: {error.strerror}") from None
            try:
                with usable(self.path):
                    yield
            finally:
                with suppress(OSError):
                    # A run that was refused before it began leaves no folder.
                    if not any(self.path.iterdir()):
                        self.path.rmdir()
                    lock.unlink(missing_ok=True)

    def supersede(self, identity: Mapping[str, Any]) -> Iterator[Path]:
        """Moves runs of the same options with another identity out of the way, so that what lies
        beside each other was made by the same code; gives their new places. One that is being
        written or whose identity can't be read stays."""
        for path in sorted(self.path.parent.glob("*/identity.json")):
            other = path.parent
            made = _object(path)
            if other == self.path or made is None:
                continue
            if made.get("configuration") != identity["configuration"]:
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

    def damaged(self, identity: Mapping[str, Any]) -> list[str]:
        """What to tell about files that do not say what they must beside this run's samples; all
        but the environment are written anew. A missing summary is what a kill leaves."""
        ours = json.loads(json.dumps(identity))
        sound = {
            "identity.json": lambda path: _object(path) == ours,
            "config.yaml": lambda path: _fingerprint(path) == ours["configuration"],
            "summary.json": lambda path: {"label", "metrics"} <= (_object(path) or {}).keys(),
        }
        notes = []
        for name, is_sound in sound.items():
            path = self.path / name
            if not path.exists():
                if name != "summary.json" and self._samples.exists():
                    notes.append(f"{path} is missing: written anew")
            elif not is_sound(path):
                notes.append(f"{path} is damaged: written anew")
        environment = self.path / "environment.json"
        if environment.exists() and _object(environment) is None:
            environment.unlink()
            notes.append(f"{environment} is damaged: where the samples were made is not known")
        return notes

    def identity(self) -> dict[str, Any]:
        return read_object(self.path / "identity.json")

    def write_identity(self, identity: Mapping[str, Any]) -> None:
        self._replace("identity.json", json.dumps(identity, indent=2) + "\n")

    def config(self) -> DictConfig:
        """Raises `ConfigError` where it can't be read, and where it is not what was decoded."""
        path = self.path / "config.yaml"
        config = _configuration(path)
        if lacking := sorted({"sampler", "task", "model", "cache", "constraint"} - config.keys()):
            raise ConfigError(f"{path} is no run's configuration: it lacks {', '.join(lacking)}")
        known = (self.path / "identity.json").exists()
        if known and _fingerprint(path) != self.identity().get("configuration"):
            raise ConfigError(
                f"{path} is not the configuration that identity.json names: the run's own command "
                "writes it anew"
            )
        return config

    def write_config(self, text: str) -> None:
        self._replace("config.yaml", text)

    def write_environment(self, environment: Mapping[str, Any]) -> list[str]:
        """Stores the environment of the last start; returns what differs from the one before."""
        path = self.path / "environment.json"
        before = read_object(path) if path.exists() else environment
        self._replace(path.name, json.dumps(environment, indent=2) + "\n")
        return [name for name, value in environment.items() if before.get(name) != value]

    def finished(self) -> set[str]:
        """Ids of the samples that need not be decoded again: those of sound lines."""
        parsed = map(_parsed, self._lines())
        return {result.id for result in parsed if isinstance(result, SampleResult)}

    def samples(self) -> list[SampleResult]:
        """Finished samples; a line that a kill cut off does not count.

        Raises `ConfigError` for any other line that is not one sample's: what is made of a run is
        made of all of it.
        """
        found: dict[str, SampleResult] = {}
        for number, line in enumerate(self._lines(), start=1):
            result = _parsed(line)
            if isinstance(result, SampleResult) and result.id in found:
                result = f"a second line of {result.id!r}"
            if isinstance(result, str):
                raise ConfigError(
                    f"{self._samples}, line {number}: {result}; the run's own command decodes it "
                    "again"
                )
            found[result.id] = result
        return list(found.values())

    def _lines(self) -> list[bytes]:
        """Whole lines."""
        if not self._samples.exists():
            return []
        try:
            return self._samples.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise ConfigError(f"{self._samples} can't be read: {error.strerror}") from None

    def clear(self) -> None:
        """Forgets every finished sample."""
        for path in (self._samples, self._traces, self.path / "summary.json", self.path / _TRACKED):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.path / _RANKS, ignore_errors=True)

    def share(self, rank: int) -> "RunFolder":
        """Where one of several processes writes what it has decoded."""
        folder = RunFolder(self.path / _RANKS / str(rank))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder.path} can't be written: {error.strerror}") from None
        return folder

    def gather(self) -> list[SampleResult]:
        """Moves to this run's samples what several processes have written beside them; returns
        them. A kill in between loses and doubles nothing."""
        known = self.finished()
        found = []
        for path in sorted(self.path.glob(f"{_RANKS}/*")):
            shared = RunFolder(path)
            traces = {trace.sample_id: trace for trace in shared.traces()}
            for result in map(_parsed, shared._lines()):
                if isinstance(result, SampleResult) and result.id not in known:
                    known.add(result.id)
                    self.append(result, traces.get(result.id))
                    found.append(result)
        shutil.rmtree(self.path / _RANKS, ignore_errors=True)
        return found

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

    def traces_of(self, samples: Collection[str]) -> list[Trace]:
        """One of each of these samples.

        Raises `ConfigError` where one is missing, with what is wrong with the file, and for damage
        behind them.
        """
        found: dict[str, Trace] = {}
        wrong = "the file ends before it"
        for trace in parsed_traces(self._traces):
            if isinstance(trace, Trace):
                found[trace.sample_id] = trace
            else:
                wrong = trace
        if not wrong.endswith((" is cut off", " before it")) and found.keys() >= set(samples):
            raise ConfigError(f"{self._traces}, {wrong}: the run's own command mends it")
        if lost := [name for name in samples if name not in found]:
            raise ConfigError(
                f"{self._traces} holds no trace of sample {lost[0]} ({wrong}): decode again, the "
                "same run with trace=true goes on where it can"
            )
        return [found[name] for name in samples]

    def repair(
        self,
        wrong: Callable[[SampleResult], str | None],
        traced: bool,
        alternatives: int = 0,
    ) -> list[str]:
        """Drops what can't be gone on with, so that it is decoded again: lines that are damaged,
        contradict themselves or are `wrong`, and, where traces are asked for, samples without one
        or with fewer alternatives in it. Returns what to tell about it; what a kill leaves (a line
        or a trace cut off) is not worth a word.
        """
        kept: dict[str, SampleResult] = {}
        notes = []
        for number, line in enumerate(self._lines(), start=1):
            result = _parsed(line)
            if isinstance(result, SampleResult):
                found = wrong(result)
                if found is None and result.id in kept:
                    found = f"a second line of {result.id!r}"
                if found is None:
                    kept[result.id] = result
                    continue
                result = found
            notes.append(f"{self._samples}, line {number}: {result}")
        traces = {trace.sample_id: trace for trace in self.traces() if trace.sample_id in kept}
        enough = {name for name, trace in traces.items() if trace.alternatives >= alternatives}
        if traced and (lost := kept.keys() - enough):
            lacking = f"trace with {alternatives} alternatives" if alternatives else "trace"
            notes.append(f"{len(lost)} samples of {self.path} have no {lacking}")
            traces = {name: trace for name, trace in traces.items() if name in enough}
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
        """Raises `ConfigError` where it can't be read."""
        return read_object(self.path / "summary.json")

    def files(self) -> list[Path]:
        """What the run is made of, without a tracker's own folder and what was made of it."""
        found = (path for path in self.path.iterdir() if path.is_file())
        return sorted(path for path in found if path.name[0] != "." and path.name != _TRACKED)

    def tracked(self) -> dict[str, Any] | None:
        """Destination of the tracker that has the whole run, None if none has."""
        path = self.path / _TRACKED
        return _object(path) if path.exists() else None

    def write_tracked(self, destination: Mapping[str, str | None]) -> None:
        self._replace(_TRACKED, json.dumps(destination) + "\n")

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


def _parsed(line: bytes) -> SampleResult | str:
    """The result, or what is wrong with the line."""
    try:
        values = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(values, dict):
        return "no object"
    if wrong := sorted(values.keys() - _HINTS.keys()) + sorted(_REQUIRED - values.keys()):
        return f"{wrong[0]} is missing or unknown"
    for name, value in values.items():
        hint = _HINTS[name]
        # A divergence is zero within rounding, on either side.
        if not fits(value, hint) or not (name == "audit_kl" or _counts(value)):
            kind = hint.__name__ if isinstance(hint, type) else hint
            return f"{name}={value!r} is no {kind} that can be"
    result = SampleResult(**values)
    return result.contradiction() or result


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _counts(value: Any) -> bool:
    """Whether numbers, those in a list or by name too, are none below zero."""
    if isinstance(value, dict):
        return all(isinstance(item, (int, float)) and _counts(item) for item in value.values())
    if isinstance(value, list):
        return all(map(_counts, value))
    return not isinstance(value, (int, float)) or value >= 0


def _object(path: Path) -> dict[str, Any] | None:
    """None where the file is damaged."""
    try:
        return read_object(path)
    except ConfigError:
        return None


def _configuration(path: Path) -> DictConfig:
    """Raises `ConfigError` where the file is damaged."""
    try:
        config = OmegaConf.load(path)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, YAMLError, OmegaConfBaseException):
        raise ConfigError(f"{path} is not valid YAML") from None
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} is no run's configuration")
    return config


def _fingerprint(path: Path) -> str | None:
    """Of a stored configuration; None where it is damaged."""
    try:
        return fingerprint(_configuration(path))
    except (ConfigError, ValueError, OmegaConfBaseException):
        return None


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

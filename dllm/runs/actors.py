"""Decoding by Ray actors, on this machine or a cluster. Ray starts an actor anew that has died and
gives it its samples again; what comes back is written here, so that each sample has one result."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dllm.errors import ConfigError, RunError
from dllm.runs.decoding import Decoding
from dllm.runs.executor import Finished, Work
from dllm.runs.stopping import asked


@dataclass(frozen=True, kw_only=True)
class RayActors:
    """Each actor loads the model once, for a run and what is decoded beside it."""

    address: str | None
    """Of a running cluster, "auto" for the one that runs here; None = one is started here."""
    workers: int
    cpus: int
    """Of each actor."""
    gpus: float
    """Of each actor; a fraction shares one."""
    restarts: int
    """Of each actor that died."""

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("cpus", 1), ("gpus", 0), ("restarts", 0)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"executor.{name}={getattr(self, name)} must be >= {least}")

    @property
    def here(self) -> bool:
        return False

    def check(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError('executor=ray needs Ray: pip install "dllm-decode[ray]"')
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # A cluster has what it has; one of our own has what the actors need.
        own = {"num_cpus": self.workers * self.cpus} if self.address is None else {}
        try:
            _ray().init(
                self.address,
                include_dashboard=False if self.address is None else None,
                logging_level="ERROR",
                log_to_driver=False,
                ignore_reinit_error=True,
                **own,
            )
        except Exception as error:  # what Ray raises where a cluster does not answer or start
            line = " ".join(str(error).split())
            raise ConfigError(f"executor.address={self.address}: {line}") from None

    def results(self, work: Work, decoding: Decoding, samples: Sequence[str]) -> Iterator[Finished]:
        ray = _ray()
        known, waiting = ray.put(work), list(_parts(samples, decoding.config.batch_size))
        pool, running = self._pool(), {}
        try:
            while waiting or running:
                for actor in pool:
                    if waiting and not asked() and actor not in running.values():
                        running[actor.decode.remote(known, waiting.pop(0))] = actor
                if not running:
                    return
                (ready, *_), _ = ray.wait(list(running))
                running.pop(ready)
                yield from ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, (ConfigError, RunError)):
                raise type(cause)(*cause.args) from None
            raise
        except ray.exceptions.RayError as error:
            raise RunError(
                f"a Ray actor was lost for good (executor.restarts={self.restarts}): "
                f"{type(error).__name__}; what is finished is kept, the same command goes on"
            ) from None

    def _pool(self) -> Sequence[Any]:
        """The command's actors, started when the first samples come."""
        # The worker decodes runs, which are given this executor.
        from dllm.runs.worker import Worker

        if not _ACTORS:
            made = (
                _ray()
                .remote(Worker)
                .options(
                    num_cpus=self.cpus,
                    num_gpus=self.gpus,
                    max_restarts=self.restarts,
                    max_task_retries=self.restarts,
                )
            )
            _ACTORS.extend(made.remote() for _ in range(self.workers))
        return _ACTORS

    def finish(self) -> None:
        _ACTORS.clear()
        _ray().shutdown()


def _ray() -> Any:
    """Not imported by who does without."""
    return import_module("ray")


_ACTORS: list[Any] = []
"""Of the command that runs: a configuration's object is frozen."""


def _parts(samples: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (samples[start : start + size] for start in range(0, len(samples), size))

"""Where samples are decoded: in this process, or wherever an executor sends them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dllm.metrics.definitions import SampleResult
from dllm.runs.decoding import Decoding
from dllm.step.trace import Trace


@dataclass(frozen=True)
class Work:
    """A run, told so that another process can decode samples of it."""

    config: str
    """Complete, as YAML."""
    name: str
    """Of the sampler."""
    mark: str
    """Of the run's identity: whoever reads other code, another model or other data has another."""
    references: Mapping[str, Sequence[int]]
    """The model's own answers by sample."""


Finished = tuple[SampleResult, Trace | None]


class Executor(Protocol):
    @property
    def here(self) -> bool:
        """Whether this process decodes, and needs the model's weights."""
        ...

    def check(self) -> None:
        """Raises `ConfigError` for what `results` would fail of, before any work is done."""
        ...

    def results(self, work: Work, decoding: Decoding, samples: Sequence[str]) -> Iterator[Finished]:
        """Each of the samples once, as they are finished.

        Raises `ConfigError` or `RunError` for what keeps the work from being done.
        """
        ...

    def finish(self) -> None:
        """Gives back what was taken for the command."""
        ...


@dataclass(frozen=True)
class Local:
    @property
    def here(self) -> bool:
        return True

    def check(self) -> None:
        pass

    def results(self, work: Work, decoding: Decoding, samples: Sequence[str]) -> Iterator[Finished]:
        return decoding.results(samples)

    def finish(self) -> None:
        pass

"""Progress bar of a run: samples done, running accuracy, tokens per second."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from dllm.metrics.definitions import SampleResult


class Progress:
    """Context manager; `add` each result as it comes."""

    def __init__(self, label: str, total: int):
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("accuracy {task.fields[accuracy]}  {task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task(label, total=total, accuracy="-", speed="-")
        self._correct = self._graded = self._count = self._tokens = 0
        self._seconds = 0.0

    def add(self, result: SampleResult) -> None:
        self._count += 1
        self._correct += bool(result.correct)
        self._graded += result.correct is not None
        self._tokens += result.effective
        self._seconds += result.seconds
        self._bar.update(
            self._task,
            advance=1,
            accuracy=f"{self._correct / self._graded:.3f}" if self._graded else "-",
            speed=f"{self._tokens / self._seconds:.0f}" if self._seconds else "-",
        )

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)

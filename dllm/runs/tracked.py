"""What a tracker shows of a run: the contents of its folder, nothing else.

Samples are sent as they are finished. A resumed run sends those of before first, in the order in
which they were finished, so that it shows the same as an undisturbed one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dllm.metrics.definitions import SampleResult
from dllm.runs.folder import RunFolder
from dllm.step.trace import Trace
from dllm.tracking.none import NoTracker
from dllm.tracking.tracker import Tracker


Exhibits = Callable[[Path], Sequence[Path]]
"""Writes pictures and pages of a finished run into its folder; returns their paths."""


class Tracked:
    """A run on its way to a tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._count = self._correct = self._graded = self._effective = self._nfe = 0
        self._seconds = 0.0

    def add(self, result: SampleResult) -> None:
        """Sends a finished sample's numbers and the running means."""
        self._count += 1
        self._correct += bool(result.correct)
        self._graded += result.correct is not None
        if result.failure is None:
            self._effective += result.effective
        self._nfe += result.nfe
        self._seconds += result.seconds
        values = {
            "nfe": result.nfe,
            "effective": result.effective,
            "seconds": result.seconds,
            "tpf": self._effective / self._nfe if self._nfe else 0.0,
            "tokens_per_second": self._effective / self._seconds if self._seconds else 0.0,
        }
        if result.correct is not None:
            values["correct"] = int(result.correct)
        if self._graded:
            values["accuracy"] = self._correct / self._graded
        self._tracker.log(values, "sample", self._count)

    def close(
        self,
        folder: RunFolder,
        results: Sequence[SampleResult],
        summary: dict[str, Any],
        exhibits: Exhibits | None,
    ) -> None:
        """Sends means per denoising step, the table of samples, the summary, the folder's files and
        what `exhibits` makes of them."""
        if isinstance(self._tracker, NoTracker):
            return
        for step, values in enumerate(_per_step(folder.traces())):
            self._tracker.log(values, "denoising_step", step)
        self._tracker.table("samples", [result.row() for result in results])
        versus = summary.get("versus_baseline", {})
        self._tracker.summary(_scalars(summary["metrics"] | versus))
        made = exhibits(folder.path) if exhibits is not None else ()
        self._tracker.attach(f"run-{summary['fingerprint']}", [*folder.files(), *made])


def _per_step(traces: Sequence[Trace]) -> list[dict[str, float]]:
    """Means over the sequences still decoding at each step: tokens committed and their scores."""
    rows = []
    for step in range(max((len(trace.steps) for trace in traces), default=0)):
        alive = [trace.steps[step] for trace in traces if step < len(trace.steps)]
        scores = [score for record in alive for score in record.scores]
        row = {
            "sequences": len(alive),
            "committed": sum(len(record.positions) for record in alive) / len(alive),
        }
        if scores:
            row["score"] = sum(scores) / len(scores)
        rows.append(row)
    return rows


def _scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Nested metrics as `name/part`."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{part}": number for part, number in value.items()}
        elif value is not None:
            flat[name] = value
    return flat

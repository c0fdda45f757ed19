"""What a tracker shows of a run: the contents of its folder, nothing else.

All of it is sent at the end, so that a resumed run shows the same as an undisturbed one.
"""

from collections.abc import Sequence
from typing import Any

from dllm.metrics.definitions import SampleResult
from dllm.runs.folder import RunFolder
from dllm.step.trace import Trace
from dllm.tracking.none import NoTracker
from dllm.tracking.tracker import Tracker


def track(
    tracker: Tracker, folder: RunFolder, results: Sequence[SampleResult], summary: dict[str, Any]
) -> None:
    """Sends running means per sample, means per denoising step, the table of samples and the
    summary."""
    if isinstance(tracker, NoTracker):
        return
    correct = graded = effective = nfe = 0
    seconds = 0.0
    for index, result in enumerate(results, start=1):
        correct += bool(result.correct)
        graded += result.correct is not None
        effective += result.effective
        nfe += result.nfe
        seconds += result.seconds
        values = {
            **({"accuracy": correct / graded} if graded else {}),
            "tpf": effective / nfe if nfe else 0.0,
            "nfe": result.nfe,
            "tokens_per_second": effective / seconds if seconds else 0.0,
        }
        tracker.log(values, "sample", index)
    for step, values in enumerate(_per_step(folder.traces())):
        tracker.log(values, "denoising_step", step)
    tracker.table("samples", [result.row() for result in results])
    versus = summary.get("versus_baseline", {})
    tracker.summary({**_scalars(summary["metrics"]), **versus})


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

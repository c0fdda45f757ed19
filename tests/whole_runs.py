"""Whole commands in this process or a forked one, and what they leave behind."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

import dllm.report.exhibits
import dllm.report.tables
import dllm.runs.execute
import samplers.low_confidence
import samplers.threshold
from dllm.metrics.definitions import SampleResult
from dllm.runs.folder import RunFolder
from scripts import run as script


def main(arguments: Sequence[str]) -> None:
    """The entry point, as a process of its own would find it."""
    GlobalHydra.instance().clear()
    sys.argv = ["run", *arguments]
    script.main()


# What a command imports on its way, so that no forked process need do it.
assert dllm.report.exhibits and dllm.report.tables and dllm.runs.execute
assert samplers.low_confidence and samplers.threshold


def timeless(result: SampleResult) -> SampleResult:
    measured = ("seconds", "model_seconds", "latency", "other_seconds", "peak_memory_mb")
    return replace(result, **dict.fromkeys(measured, 0.0))


def contents(root: Path, sampler: str = "threshold") -> tuple[dict[str, SampleResult], dict]:
    """Samples and summary without what a clock decides."""
    (path,) = root.glob(f"{sampler}/*/summary.json")
    folder = RunFolder(path.parent)
    summary = json.loads(path.read_text())
    for metrics in (summary["metrics"], summary.get("baseline", {}).get("metrics", {})):
        for name in [n for n in metrics if n.startswith(("tokens_per_second", "latency", "peak"))]:
            del metrics[name]
    results = folder.samples()
    assert len({result.id for result in results}) == len(results)
    assert {trace.sample_id for trace in folder.traces()} == {result.id for result in results}
    assert not (path.parent / "ranks").exists()
    return {result.id: timeless(result) for result in results}, summary

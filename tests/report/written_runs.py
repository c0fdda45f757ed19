"""Run folders written down by hand: nothing is decoded."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from sample_results import sample

from dllm.config import compose, fingerprint
from dllm.metrics.definitions import SampleResult, Summary
from dllm.runs.folder import RunFolder
from dllm.runs.labels import label, task_name


def answers(grades: Sequence[bool | None], forwards: int, **changes: Any) -> list[SampleResult]:
    return [
        sample(f"{i:04d}", correct=grade, forwards={"step": forwards}, **changes)
        for i, grade in enumerate(grades)
    ]


def write_run(
    root: Path,
    sampler: str,
    samples: Sequence[SampleResult],
    *options: str,
    baseline: Path | None = None,
    environment: dict[str, Any] | None = None,
) -> Path:
    """Folder of a finished run with these samples."""
    config = compose([f"sampler={sampler}", f"output={root}", *options])
    mark = fingerprint(config)
    path = root / sampler / mark
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.write_config(OmegaConf.to_yaml(config, resolve=True))
    folder.write_identity({"configuration": mark, "code": {"dllm.engine": "a"}, "model": {}})
    folder.write_environment(environment or {"torch": "2.13.0", "device": "cpu (x86_64)"})
    for one in samples:
        folder.append(one)
    summary: dict[str, Any] = {
        "label": label(config, sampler),
        "fingerprint": mark,
        "model": config.model.name,
        "task": task_name(config),
        "metrics": asdict(Summary.of(samples)),
    }
    if baseline is not None:
        summary["baseline"] = RunFolder(baseline).summary()
    folder.write_summary(summary)
    return path

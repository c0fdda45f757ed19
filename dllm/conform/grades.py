"""Recorded grades of made-up outputs: ours must equal those of the benchmark's own functions."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from dllm.conform.traces import FileResult, Verdict
from dllm.errors import ConfigError
from dllm.tasks.base import Sample
from dllm.tasks.parallelbench.files import ParallelBench


METHOD = "parallelbench_grades"


def check(path: Path, data: Path) -> FileResult:
    """Grades every case of the file; `data` holds the benchmark's own files.

    A case names a kind (`waiting_line/copy`), the line of its file, an output and both scores.
    """
    cases = json.loads(path.read_text())["cases"]
    if not data.is_dir():
        raise ConfigError(f"no files of ParallelBench in {data}: name their folder by --data")
    kinds = sorted({case["task"] for case in cases})
    task = ParallelBench(str(data), kinds)
    samples: dict[str, list[Sample]] = defaultdict(list)
    for sample in task.samples("test"):
        samples[sample.task].append(sample)

    def difference(number: int, case: dict[str, Any]) -> str | None:
        grade = task.assess(samples[case["task"]][case["index"]], case["output"])
        ours = {"score": float(grade.correct), **grade.scores}
        wrong = {name: value for name, value in ours.items() if value != case[name]}
        return f"case {number} ({case['task']}): {wrong}" if wrong else None

    found = [text for n, case in enumerate(cases) if (text := difference(n, case))]
    verdict = Verdict.FAILED if found else Verdict.PASSED
    return FileResult(path, verdict, len(cases), tuple(found))

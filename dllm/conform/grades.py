"""Recorded grades of made-up outputs: ours must equal those of the benchmark's own functions."""

from collections import defaultdict
from typing import Any

from dllm.conform.recorded import FileResult, Places, Recorded, check_cases
from dllm.errors import ConfigError
from dllm.tasks.base import Sample
from dllm.tasks.parallelbench.files import ParallelBench


METHOD = "parallelbench_grades"


def check(recorded: Recorded, places: Places) -> FileResult:
    """Grades every case of the file with the benchmark's own files.

    A case names a kind (`waiting_line/copy`), the line of its file, an output and both scores.
    """
    if not places.data.is_dir():
        raise ConfigError(
            f"no files of ParallelBench in {places.data}: name their folder by --data"
        )
    check_cases(recorded, {"task": str, "index": int, "output": str})
    kinds = sorted({case["task"] for case in recorded.cases})
    task = ParallelBench(str(places.data), kinds, grammar=True, bertscore=False, infill=False)
    samples: dict[str, list[Sample]] = defaultdict(list)
    for sample in task.samples("test"):
        samples[sample.task].append(sample)

    def difference(number: int, case: dict[str, Any]) -> str | None:
        grade = task.assess(samples[case["task"]][case["index"]], case["output"])
        ours = {"score": float(bool(grade.correct)), **grade.scores}
        wrong = {name: value for name, value in ours.items() if value != case[name]}
        return f"case {number} ({case['task']}): {wrong}" if wrong else None

    found = (difference(number, case) for number, case in enumerate(recorded.cases))
    return FileResult.of(recorded.path, found)

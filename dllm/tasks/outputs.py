"""Grades of outputs that were made anywhere, from a file of lines `{"index" or "id", "output"}`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from dllm.errors import ConfigError
from dllm.metrics.statistics import wilson
from dllm.tasks.base import Grade, Sample, Task
from dllm.tasks.rows import read_lines


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The grades of one kind, or of all."""

    n: int
    correct: int
    unparsed: int
    low: float
    high: float
    """95 % Wilson interval of the accuracy."""
    scores: Mapping[str, float]
    """Means of the task's further metrics."""

    @classmethod
    def of(cls, grades: Sequence[Grade]) -> Self:
        correct = sum(bool(grade.correct) for grade in grades)
        low, high = wilson(correct, len(grades))
        names = dict.fromkeys(name for grade in grades for name in grade.scores)
        return cls(
            n=len(grades),
            correct=correct,
            unparsed=sum(grade.unparsed for grade in grades),
            low=low,
            high=high,
            scores={n: fmean(g.scores[n] for g in grades if n in g.scores) for n in names},
        )

    def line(self) -> str:
        text = (
            f"{self.correct}/{self.n} correct, accuracy {self.correct / self.n:.4f} "
            f"[{self.low:.4f}, {self.high:.4f}]"
        )
        if self.unparsed:
            text += f", {self.unparsed} without an answer that can be read"
        return text + "".join(f", {name} {mean:.4f}" for name, mean in self.scores.items())


def grade_file(task: Task, path: Path) -> tuple[dict[str, list[Grade]], int]:
    """Grades by kind, and how many of the task's samples have no output.

    A line names its sample by `id`, or by `index` (from 0) in the file or, with `task`, in the kind
    of that name. Raises `ConfigError` for a line without output or sample, or a sample given twice.
    """
    samples = task.samples("test")
    known: dict[Any, Sample] = {sample.id: sample for sample in samples}
    for kind in task.kinds:
        of_kind = [sample for sample in samples if sample.task == kind]
        known |= {(kind, index): sample for index, sample in enumerate(of_kind)}
        if len(task.kinds) == 1:
            known |= dict(enumerate(of_kind))
    grades: dict[str, list[Grade]] = {}
    seen: set[str] = set()
    for number, line in enumerate(read_lines(path, "outputs"), start=1):
        where = f"outputs={path}: entry {number}"
        if not isinstance(line.get("output"), str):
            raise ConfigError(f"{where} has no text under output")
        if "id" in line:
            name = line["id"]
        elif "index" in line:
            name = (line["task"], line["index"]) if "task" in line else line["index"]
        else:
            raise ConfigError(f"{where} has neither id nor index")
        sample = known.get(name) if _is_name(name) else None
        if sample is None:
            hint = "" if len(task.kinds) == 1 else "; of several kinds, an index needs its task"
            raise ConfigError(f"{where}: {name!r} is no sample of the task{hint}")
        if sample.id in seen:
            raise ConfigError(f"{where}: a second output of {name!r}")
        seen.add(sample.id)
        grade = task.assess(sample, task.answer_in(line["output"]))
        grades.setdefault(sample.task, []).append(grade)
    if not grades:
        raise ConfigError(f"outputs={path} holds no output")
    return grades, len(samples) - len(seen)


def _is_name(name: Any) -> bool:
    """Whether a sample could have it: true is no 1, and lists can't be looked up."""
    parts = name if isinstance(name, tuple) else (name,)
    return all(isinstance(part, (str, int)) and not isinstance(part, bool) for part in parts)

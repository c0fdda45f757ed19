"""Runs that answered the same questions, and what their pairs allow to be said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dllm.errors import ConfigError
from dllm.metrics.statistics import Verdict, ratio_interval
from dllm.metrics.tradeoff import pareto
from dllm.report.existing import Run
from dllm.report.verdicts import FLOOR, Difference, said


@dataclass(frozen=True)
class Group:
    """Runs over the same samples; they may have decoded with different models."""

    runs: Mapping[str, Run]
    """Number in the tables -> run."""
    baselines: Mapping[str, str]
    """Run -> the one that it is compared with."""
    controls: Mapping[str, str]
    """Run -> the simpler rule that it asks to be compared with."""

    @property
    def task(self) -> str:
        return next(iter(self.runs.values())).task

    @property
    def title(self) -> str:
        return f"{self.task}, {len(next(iter(self.runs.values())).samples)} samples"

    def names(self) -> dict[str, str]:
        """Labels, told apart by the fingerprint where two are alike."""
        labels = [run.label for run in self.runs.values()]
        return {
            number: run.label if labels.count(run.label) == 1 else f"{run.label} {run.fingerprint}"
            for number, run in self.runs.items()
        }

    def frontier(self) -> set[str]:
        """Runs that no other one equals or beats in accuracy and forwards and beats in one."""
        points = {
            number: (-run.metrics.nfe, run.metrics.accuracy)
            for number, run in self.runs.items()
            if run.metrics.accuracy is not None
        }
        front = pareto(list(points.values()))
        return {number for number, point in points.items() if point in front}

    def pairs(self) -> dict[tuple[str, str], str]:
        """(run, other) -> what the other one is to it."""
        found = {(number, other): "baseline" for number, other in self.baselines.items()}
        for number, other in self.controls.items():
            found.setdefault((number, other), "control")
        return found

    def differences(self, margin: float) -> dict[tuple[str, str], Difference]:
        """Of the pairs with at least two graded samples."""
        found = {}
        for number, other in self.pairs():
            ours, theirs = self.runs[number].graded, self.runs[other].graded
            ids = [[sample.id for sample in cell.samples] for cell in (ours, theirs)]
            if len(ids[0]) >= 2 and ids[0] == ids[1] and theirs.nfe:
                found[number, other] = Difference.between(ours, theirs, margin)
        return found

    def on_floor(self, number: str) -> bool:
        """Whether a loss beside this run can't show."""
        accuracy = self.runs[number].metrics.accuracy
        return accuracy is not None and accuracy < FLOOR

    def speed_up(self, number: str) -> tuple[float, float, float] | None:
        """Forwards of all models, the baseline's over the run's, with a paired 95 % interval; None
        without one."""
        if number not in self.baselines:
            return None
        ours, theirs = (
            [sample.forwards_of_all for sample in self.runs[n].samples]
            for n in (number, self.baselines[number])
        )
        if len(ours) < 2 or not all(ours):
            return None
        return (sum(theirs) / sum(ours), *ratio_interval(theirs, ours))


def grouped(runs: Sequence[Run], baseline: str | None) -> list[Group]:
    """Runs by the questions that they answered, each compared with `baseline` (a folder, label or
    fingerprint), or else with its own baseline.

    Raises `ConfigError` where no run, or more than one of the same questions, is meant.
    """
    by_questions: dict[object, list[Run]] = {}
    for run in runs:
        by_questions.setdefault((run.task, run.questions()), []).append(run)
    if baseline is not None and not any(_is(run, baseline) for run in runs):
        known = ", ".join(dict.fromkeys(run.label for run in runs))
        raise ConfigError(f"--baseline {baseline} is none of the runs: {known}")
    return [_group(of_questions, baseline) for of_questions in by_questions.values()]


def _group(runs: Sequence[Run], baseline: str | None) -> Group:
    numbered = {str(number): run for number, run in enumerate(runs, start=1)}
    places = {run.folder.path: number for number, run in numbered.items()}

    def beside(kind: str) -> dict[str, str]:
        folders = {number: run.beside(kind) for number, run in numbered.items()}
        return {
            number: places[folder]
            for number, folder in folders.items()
            if folder is not None and places.get(folder, number) != number
        }

    if baseline is None:
        baselines = beside("baseline")
    else:
        meant = [number for number, run in numbered.items() if _is(run, baseline)]
        if len(meant) > 1:
            folders = ", ".join(str(numbered[number].folder.path) for number in meant)
            raise ConfigError(f"--baseline {baseline} is several runs: {folders}")
        baselines = {number: other for other in meant for number in numbered if number != other}
    return Group(numbered, baselines, beside("control"))


def _is(run: Run, named: str) -> bool:
    return named in (run.label, run.fingerprint) or Path(named).resolve() == run.folder.path


Pair = tuple[str, ...]
"""(index of the group, run, other)."""


def words(
    groups: Sequence[Group], margin: float
) -> tuple[dict[Pair, Difference], dict[Pair, Verdict]]:
    """Every difference, and a word for those that can be tested; Holm over all groups."""
    found: dict[Pair, Difference] = {
        (str(index), *pair): difference
        for index, group in enumerate(groups)
        for pair, difference in group.differences(margin).items()
    }
    tested = {
        pair: difference
        for pair, difference in found.items()
        if not groups[int(pair[0])].on_floor(pair[2])
    }
    return found, said(tested)

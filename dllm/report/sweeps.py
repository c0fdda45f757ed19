"""A sweep over one number of a rule, summed up: what accuracy is left at what speed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from dllm.metrics.definitions import SampleResult
from dllm.metrics.tradeoff import aup, fastest_at, order_preference, parallelisability
from dllm.report.document import Entry, Section, Table
from dllm.report.existing import Run
from dllm.report.groups import Group


LEVELS = (90, 80, 70, 60)
"""Accuracies in percent at which the speed is read off."""
READING = (
    "Runs that differ in one number of their rule alone. AUP: accuracy under parallelism as the "
    "d3LLM project defines it, over TPF; its best accuracy is that of this table's runs: another "
    "company gives another value. PB90 to PB60: the most positions per forward, padding included, "
    "at a mean accuracy over the kinds of at least so many percent (ParallelBench, version 2), "
    "interpolated where the number has values between. parallelisability: items per step, weighted "
    "by the accuracy there; order preference: accuracy, in points, lost per position that blocks "
    "grow (ParallelBench's figure 6). Figures as they stand: none is a test."
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run of a sweep."""

    tpf: float
    """Tokens before the first end token per forward."""
    per_forward: float
    """Positions per forward, padding included: mean over the kinds."""
    score: float
    """Percent: mean over the kinds."""

    @classmethod
    def of(cls, samples: Sequence[SampleResult]) -> Self:
        """Of samples with grades."""
        kinds: dict[str, list[SampleResult]] = {}
        for sample in samples:
            kinds.setdefault(sample.task, []).append(sample)
        nfe = sum(sample.nfe for sample in samples)
        return cls(
            tpf=sum(sample.effective for sample in samples) / max(1, nfe),
            per_forward=fmean(map(_per_forward, kinds.values())),
            score=100 * fmean(fmean(bool(s.correct) for s in of) for of in kinds.values()),
        )


def _per_forward(samples: Sequence[SampleResult]) -> float:
    nfe = sum(sample.nfe for sample in samples)
    return sum(len(sample.tokens) for sample in samples) / max(1, nfe)


def speeds(settings: Sequence[Setting], best: float, interpolate: bool) -> dict[str, str]:
    """AUP and the speed at every level, by name.

    best: percent, of all that is compared
    """
    points = [(setting.per_forward, setting.score) for setting in settings]
    found = {"AUP": f"{aup([(s.tpf, s.score) for s in settings], best):.1f}"}
    for level in LEVELS:
        speed = fastest_at(points, level, interpolate)
        found[f"PB{level}"] = "-" if speed is None else f"{speed:.2f}"
    return found


def sweeps(group: Group) -> Iterator[tuple[str, dict[float, Run]]]:
    """(option, its value -> run): graded runs that differ in this number of the sampler alone."""
    runs = [run for run in group.runs.values() if run.metrics.graded == run.metrics.n]
    for option in dict.fromkeys(name for run in runs for name in run.recipe):
        if not option.startswith("sampler."):
            continue
        alike: dict[object, dict[float, Run]] = {}
        for run in runs:
            value = _number(run.recipe.get(option))
            if value is not None:
                alike.setdefault(_rest(run, option), {})[value] = run
        for found in alike.values():
            if len(found) > 1:
                yield option, dict(sorted(found.items()))


def _rest(run: Run, option: str) -> object:
    apart = ("machine ", "version ")  # seconds, and rounding
    kept = (i for i in run.recipe.items() if i[0] != option and not i[0].startswith(apart))
    return frozenset(kept)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def section(group: Group) -> Iterator[Section]:
    """None without a sweep."""
    accuracies = [r.metrics.accuracy for r in group.runs.values() if r.metrics.accuracy is not None]
    lines = []
    for option, runs in sweeps(group):
        settings = {value: Setting.of(run.samples) for value, run in runs.items()}
        best = max(100 * max(accuracies), *(setting.score for setting in settings.values()))
        between = not all(value.is_integer() for value in settings)
        line = {
            "sampler": next(iter(runs.values())).folder.path.parent.name,
            "over": f"{option.removeprefix('sampler.')} = {', '.join(f'{v:g}' for v in settings)}",
            **speeds(list(settings.values()), best, between),
            **_of_option(option, runs, settings),
        }
        lines.append(line)
    if lines:
        names = dict.fromkeys(name for line in lines for name in line)
        rows = [[Entry(line.get(name, "")) for name in names] for line in lines]
        yield Section("Sweeps", [READING], Table(list(names), rows), level=3)


def _of_option(
    option: str, runs: Mapping[float, Run], settings: Mapping[float, Setting]
) -> dict[str, str]:
    """What only a sweep of the steps or of the blocks tells."""
    if option == "sampler.steps":
        scores = {runs[v].config.gen_length / v: s.score for v, s in settings.items()}
        return {"parallelisability": f"{parallelisability(scores):.2f}"}
    if option.endswith("block_length"):
        scores = {value: setting.score for value, setting in settings.items()}
        return {"order preference": f"{order_preference(scores):+.2f}"}
    return {}

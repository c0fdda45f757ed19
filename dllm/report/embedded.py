"""The embedded tasks decoded with every confidence rule, beside plain thresholds of the same cost.

Each cell is an ordinary run (same folder, same resume as `scripts.run`), so that a killed report
goes on where it was. The control of a rule is the plain threshold of the sweep whose forwards per
sample are nearest to the rule's: what a rule is worth shows against it, not against one token per
step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.metrics.statistics import mcnemar
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


TASKS = ("listops", "arithmetic", "json", "latin")
BASELINE = "low_confidence"
SWEEP = {
    f"threshold {value}": ["sampler=threshold", f"sampler.threshold={value}"]
    for value in (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
}
_FIXED = "sampler/region=fixed"
CASES: dict[str, list[str]] = {
    BASELINE: ["sampler=low_confidence"],
    **SWEEP,
    "factor 1": ["sampler=factor"],
    "factor 0.5": ["sampler=factor", "sampler.factor=0.5"],
    "localleap": ["sampler=localleap"],
    "dinfer_threshold 0.9": ["sampler=dinfer_threshold"],
    "dinfer_hierarchy": ["sampler=dinfer_hierarchy"],
    "hierarchy_remask": ["sampler=hierarchy_remask"],
    "credit": ["sampler=credit"],
    "credit_paper": ["sampler=credit_paper"],
    "credit_adaptive": ["sampler=credit_adaptive"],
    "localleap + credit": ["sampler=localleap", "sampler/logits_transform=credit"],
    "klass": ["sampler=klass"],
    "eb_sampler 0.1": ["sampler=eb_sampler"],
    "eb_sampler 0.5": ["sampler=eb_sampler", "sampler.gamma=0.5"],
    "eb_d2cache": ["sampler=eb_d2cache"],
    "wino": ["sampler=wino"],
    "pc_sampler": ["sampler=pc_sampler"],
    "certainty_prior": ["sampler=certainty_prior"],
    "ar 0.9": ["sampler=ar", "sampler.threshold=0.9"],
    "sdar": ["sampler=sdar", _FIXED, "sampler.region.block_length=4"],
    "llada2": ["sampler=llada2", _FIXED],
    "llada2_edit": ["sampler=llada2_edit", _FIXED],
    "dream_entropy, 8 steps": ["sampler=dream_entropy", "sampler.steps=8"],
    "dream_maskgit_plus, 8 steps": ["sampler=dream_maskgit_plus", "sampler.steps=8"],
    "fastdllm_dream, 1 step": ["sampler=fastdllm_dream", "sampler.steps=1", "batch_size=1"],
    "random, 8 steps": ["sampler=random", "sampler.steps=8"],
}
"""Rule in its authors' setting -> options of `scripts.run`."""
SIGNIFICANT = 0.05
DEARER = 1.15
_RUN = ["tracker=none", "progress=false", "trace=false", "baseline=false"]


@dataclass(frozen=True)
class Cell:
    """One rule on one task."""

    n: int
    accuracy: float
    low: float
    high: float
    nfe: float
    tpf: float
    grades: tuple[bool, ...]
    """Sample by sample, in the same order for every rule."""

    @classmethod
    def of(cls, metrics: Mapping[str, Any], grades: Sequence[bool]) -> "Cell":
        return cls(
            metrics["n"],
            metrics["accuracy"],
            metrics["accuracy_low"],
            metrics["accuracy_high"],
            metrics["nfe"],
            metrics["tpf"],
            tuple(grades),
        )


Cells = Mapping[str, Mapping[str, Cell]]
"""Task -> rule -> cell."""


def confidence(
    output: Path, limit: int, cases: Sequence[str] = (), tasks: Sequence[str] = ()
) -> None:
    """Decodes what is missing and writes the page; sweep and baseline always take part."""
    for name in cases:
        if name not in CASES:
            raise ConfigError(f"--samplers {name!r} is not one of {', '.join(CASES)}")
    wanted = [n for n in CASES if not cases or n in cases or n in SWEEP or n == BASELINE]
    measured: dict[str, dict[str, Cell]] = {}
    for task in tasks or TASKS:
        measured[task] = {}
        for name in wanted:
            config = compose([f"task={task}", f"limit={limit}", *_RUN, *CASES[name]])
            sampler = CASES[name][0].removeprefix("sampler=")
            folder, summary = execute(config, sampler)
            results = sorted(RunFolder(folder).samples(), key=lambda result: result.id)
            cell = Cell.of(summary["metrics"], [result.correct for result in results])
            measured[task][name] = cell
            print(f"{task}: {name}: {cell.accuracy:.3f} at {cell.nfe:.2f} forwards", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(measured, limit))


def page(measured: Cells, limit: int) -> str:
    """The whole report as Markdown."""
    only = "" if tuple(measured) == TASKS else f" --tasks {' '.join(measured)}"
    lines = [
        "# Confidence rules on the embedded tasks",
        "",
        f"`python -m scripts.report embedded confidence --limit {limit}{only}`:",
        "tiny-llada, float32 on the CPU, gen_length 32, one block of 32 unless the rule has its",
        "own, seed 0. Accuracy is exact match with a 95 % Wilson interval, NFE the forwards per",
        "sample, TPF the tokens before the first end token per forward. The control is the plain",
        "threshold (section 3 of the specification) of the sweep whose NFE is nearest. Differences",
        "are called such where a",
        f"McNemar test on the same samples gives p < {SIGNIFICANT}, not adjusted for the number of",
        "rules: one in twenty comes out by chance.",
        "",
        "The model is tiny and the tasks are its training tasks: an order of rules seen here is no",
        "statement about 8B models. It was never trained to predict decided positions, which",
        "`llada2_edit` and `hierarchy_remask` rely on; `pc_sampler` has no background table.",
    ]
    for task, cells in measured.items():
        lines += ["", f"## {task}", "", *_table(cells)]
    lines += ["", "## What the tables show", ""]
    rules = [name for name in next(iter(measured.values())) if name not in (*SWEEP, BASELINE)]
    lines += [f"- **{name}**: {_verdict(name, measured)}" for name in rules]
    return "\n".join(lines) + "\n"


def _table(cells: Mapping[str, Cell]) -> list[str]:
    lines = [
        "| rule | n | accuracy [95 %] | NFE | TPF | control | its accuracy | its NFE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, cell in cells.items():
        line = (
            f"| {name} | {cell.n} | {cell.accuracy:.3f} [{cell.low:.3f}, {cell.high:.3f}] "
            f"| {cell.nfe:.2f} | {cell.tpf:.2f} |"
        )
        if name in SWEEP or name == BASELINE:
            lines.append(line + " | | |")
            continue
        control = _control(cell, cells)
        other = cells[control]
        lines.append(line + f" {control} | {other.accuracy:.3f} | {other.nfe:.2f} |")
    return lines


def _control(cell: Cell, cells: Mapping[str, Cell]) -> str:
    """The plain threshold (or one token per step) of nearest cost."""
    return min((*SWEEP, BASELINE), key=lambda name: abs(cells[name].nfe - cell.nfe))


def _verdict(name: str, measured: Cells) -> str:
    """Two sentences: against one token per step, and against the control of each task."""
    forwards = sum(cells[BASELINE].nfe for cells in measured.values())
    ratio = forwards / sum(cells[name].nfe for cells in measured.values())
    controls = {task: cells[_control(cells[name], cells)] for task, cells in measured.items()}
    baselines = {task: cells[BASELINE] for task, cells in measured.items()}
    # A rule dearer than the whole sweep has no control of its own cost.
    dear = [t for t, cells in measured.items() if cells[name].nfe > DEARER * controls[t].nfe]
    against = _changes(name, measured, controls)
    verdict = (
        against or "not distinguishable from it on any task, so that nothing is gained over it"
    )
    extra = f", although it makes more forwards on {', '.join(dear)}" if dear else ""
    return (
        f"{ratio:.1f} times fewer forwards than one token per step, accuracy "
        f"{_changes(name, measured, baselines) or 'not distinguishable from it on any task'}. "
        f"Beside the plain threshold of nearest cost it is {verdict}{extra}."
    )


def _changes(name: str, measured: Cells, others: Mapping[str, Cell]) -> str:
    """Tasks on which the same samples come out differently, by direction."""
    found: dict[str, list[str]] = {"above": [], "below": []}
    for task, cells in measured.items():
        cell, other = cells[name], others[task]
        if mcnemar(cell.grades, other.grades) < SIGNIFICANT:
            side = "above" if cell.accuracy > other.accuracy else "below"
            found[side].append(f"{task} ({cell.accuracy - other.accuracy:+.3f})")
    return "; ".join(f"{side} it on {', '.join(tasks)}" for side, tasks in found.items() if tasks)

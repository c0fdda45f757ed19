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
from dllm.runs.execute import execute


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

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> "Cell":
        return cls(
            metrics["n"],
            metrics["accuracy"],
            metrics["accuracy_low"],
            metrics["accuracy_high"],
            metrics["nfe"],
            metrics["tpf"],
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
            _, summary = execute(config, sampler)
            measured[task][name] = Cell.of(summary["metrics"])
            print(f"{task}: {name}: {measured[task][name]}", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(measured, limit))


def page(measured: Cells, limit: int) -> str:
    """The whole report as Markdown."""
    lines = [
        "# Confidence rules on the embedded tasks",
        "",
        f"`python -m scripts.report embedded confidence --limit {limit}`: tiny-llada, float32 on",
        "the CPU, gen_length 32, one block of 32 unless the rule has its own, seed 0. Accuracy is",
        "exact match with a 95 % Wilson interval, NFE the forwards per sample, TPF the tokens",
        "before the first end token per forward. The control is the plain threshold (section 3 of the",
        "specification) of the sweep whose NFE is nearest.",
        "",
        "The model is tiny and the tasks are its training tasks: an order of rules seen here is no",
        "statement about 8B models.",
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
    rule = [cells[name] for cells in measured.values()]
    base = [cells[BASELINE] for cells in measured.values()]
    forwards = sum(c.nfe for c in base) / sum(c.nfe for c in rule)
    lost = [
        f"{task} ({cells[name].accuracy - cells[BASELINE].accuracy:+.3f})"
        for task, cells in measured.items()
        if not _overlap(cells[name], cells[BASELINE])
    ]
    changed = (
        "differs from it beyond the intervals on " + ", ".join(lost)
        if lost
        else ("stays within its interval on every task")
    )
    better, worse = [], []
    for task, cells in measured.items():
        control = cells[_control(cells[name], cells)]
        if not _overlap(cells[name], control):
            (better if cells[name].accuracy > control.accuracy else worse).append(task)
    against = (
        "; ".join(
            text
            for text, tasks in (
                ("above it on " + ", ".join(better), better),
                ("below it on " + ", ".join(worse), worse),
            )
            if tasks
        )
        or "not distinguishable from it on any task: nothing is gained over a plain threshold"
    )
    return (
        f"{forwards:.1f} times fewer forwards than one token per step; accuracy {changed}. "
        f"Against the plain threshold of nearest cost it is {against}."
    )


def _overlap(a: Cell, b: Cell) -> bool:
    return a.low <= b.high and b.low <= a.high

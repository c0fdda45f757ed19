"""A suite decoded and written down: tables, comparisons and one summary sentence per chapter.

A page says better, worse or equal only where its test does; everything else is undecided, with the
smallest difference that the samples could have shown.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from textwrap import wrap

import pandas as pd

from dllm.errors import ConfigError
from dllm.metrics.statistics import ALPHA, Verdict
from dllm.metrics.tradeoff import area, oracle, parallelisability, pareto
from dllm.report.bits import RunBits, information_per_round
from dllm.report.cells import Cell, measure
from dllm.report.columns import BESIDE, COLUMNS
from dllm.report.exact import decoded, draw, of_cells, section
from dllm.report.picture import speed_and_quality
from dllm.report.suite import CONTROL, Chapter, Exact, Suite
from dllm.report.sweeps import Setting, speeds
from dllm.report.verdicts import CEILING, FLOOR, Difference, said, spelled


@dataclass(frozen=True)
class Measured:
    """A chapter with everything decoded."""

    chapter: Chapter
    cells: Mapping[str, Mapping[str, Cell]]
    """Task -> row -> cell; refused rows are missing."""
    refused: Mapping[str, str]
    """Row -> why."""
    margin: float

    def _references(self) -> dict[str, Cell]:
        return {task: next(iter(cells.values())) for task, cells in self.cells.items()}

    def frontier(self, task: str) -> list[str]:
        """Rows that no other one equals or beats in accuracy and forwards and beats in one: of the
        figures as they stand."""
        points = {row: (-cell.nfe, cell.accuracy) for row, cell in self.cells[task].items()}
        front = pareto(list(points.values()))
        return [row for row, point in points.items() if point in front]

    def line(self, task: str) -> tuple[str, list[str]]:
        """Name and rows of the line in the task's picture."""
        if self.chapter.frontier:
            return "frontier", self.frontier(task)
        return "control", self.chapter.curve

    def floors(self) -> dict[str, float]:
        """Tasks on which a loss can't show, so that nothing is tested -> the first row's
        accuracy."""
        return {t: c.accuracy for t, c in self._references().items() if c.accuracy < FLOOR}

    def ceilings(self) -> dict[str, float]:
        """Tasks on which a gain can't show."""
        return {t: c.accuracy for t, c in self._references().items() if c.accuracy > CEILING}

    def at_equal_cost(self) -> dict[tuple[str, ...], Difference]:
        """(task, row) -> difference from the control curve."""
        found = {}
        for task, cells in self.cells.items():
            curve = [cells[name] for name in self.chapter.curve if name in cells]
            for row, cell in cells.items():
                if not curve or row in self.chapter.curve:
                    continue
                difference = Difference.at_equal_cost(cell, curve, self.margin)
                if difference is not None:
                    found[task, row] = difference
        return found

    def beside(self) -> dict[tuple[str, ...], Difference]:
        """(task, row, other) -> difference from a simpler row."""
        found = {}
        for task, cells in self.cells.items():
            for row, others in self.chapter.beside.items():
                for other in others:
                    theirs = cells[row].control if other == CONTROL and row in cells else None
                    theirs = theirs or cells.get(other)
                    if row in cells and theirs is not None:
                        found[task, row, other] = Difference.between(
                            cells[row], theirs, self.margin
                        )
        return found


def decode(
    chapter: Chapter, limit: int, margin: float, rows: Sequence[str], tasks: Sequence[str]
) -> Measured:
    """Decodes what is missing of the chapter; `rows` and `tasks` narrow it down."""
    cells: dict[str, dict[str, Cell]] = {}
    refused: dict[str, str] = {}
    named = {*chapter.curve, *rows, next(iter(chapter.cases()))}
    wanted = chapter.cases().keys() & set(rows) if rows else chapter.cases().keys()
    for task, of_task in chapter.tasks.items():
        if not wanted or (tasks and task not in tasks):
            continue
        cells[task] = {}
        for row, options in chapter.cases().items():
            if rows and row not in named:
                continue
            try:
                cell = measure([*of_task, f"limit={limit}", *options])
            except ConfigError as error:
                if not cells[task]:
                    raise  # all others are read beside the first row
                refused[row] = str(error)
                continue
            cells[task][row] = cell
            print(f"{task}: {row}: {cell.accuracy:.3f} at {cell.nfe:.2f} forwards", flush=True)
    return Measured(chapter, cells, refused, margin)


def write_page(
    suite: Suite,
    limit: int,
    output: Path | None = None,
    rows: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> Path:
    """Decodes what is missing and writes the page with its pictures; returns its path."""
    _check_names(suite, rows, tasks)
    output = output or Path(suite.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    chapters = [
        measured
        for chapter in suite.chapters
        if (measured := decode(chapter, limit, suite.margin, rows, tasks)).cells
    ]
    command = ["python -m scripts.report suite", suite.name, f"--limit {limit}"]
    for option, names in (("--rows", rows), ("--tasks", tasks)):
        command += [option, *map(shlex.quote, names)] if names else []
    lines = [f"# {suite.title}", "", f"`{' '.join(command)}`", "", *wrap(suite.text, 100), ""]
    used = dict.fromkeys(name for measured in chapters for name in measured.chapter.columns)
    lines += [f"- {name}: {(COLUMNS | BESIDE)[name].definition}." for name in used]
    if any(measured.chapter.frontier for measured in chapters):
        lines += [
            "- frontier: no other row has as much accuracy with as few forwards, and more of one;",
            "  of the figures as they stand, whatever their intervals.",
        ]
    lines += [
        "- Differences are paired by sample: accuracy minus the other row's with a 95 % bootstrap",
        f"  interval. A word stands only where a test carries it (p < {ALPHA} after Holm over the",
        f"  chapter): better, worse, or equal within {suite.margin:g}. Undecided is no equality:",
        "  beside it stands the smallest true difference that these samples would show with",
        "  power 0.8.",
    ]
    for number, measured in enumerate(chapters):
        lines += ["", f"## {measured.chapter.title}", "", *wrap(measured.chapter.text, 100)]
        lines += _chapter(measured)
        if measured.chapter.curve or measured.chapter.frontier:
            picture = output.with_name(
                f"{output.stem}-{number}.png" if number else f"{output.stem}.png"
            )
            lines_drawn = {task: measured.line(task) for task in measured.cells}
            speed_and_quality(measured.cells, lines_drawn, picture)
            lines += ["", f"![accuracy against forwards]({picture.name})"]
        lines += _information(measured, output.with_suffix(""))
    for exact in suite.exact:
        lines += _exact(exact, chapters, output)
    output.write_text("\n".join(lines) + "\n")
    return output


def _exact(exact: Exact, chapters: Sequence[Measured], output: Path) -> Iterator[str]:
    points = list(decoded(exact))
    embedded = [
        point
        for measured in chapters
        for cells in measured.cells.values()
        for row, cell in cells.items()
        if (point := of_cells(row, cell)) is not None
    ]
    yield from section(exact, points)
    picture = output.with_name(f"{output.stem}-exact.png")
    draw(exact, points, embedded, picture)
    yield from ("", f"![accuracy against items per step]({picture.name})")


def _information(measured: Measured, stem: Path) -> Iterator[str]:
    for task, cells in measured.cells.items():
        runs = [
            replace(RunBits.of(cells[row].folder), label=row)
            for row in measured.chapter.information
            if row in cells
        ]
        if runs:
            picture = stem.with_name(f"{stem.name}-bits-{task.replace(' ', '-')}.png")
            information_per_round(runs, picture)
            yield from ("", f"![bits of each round, {task}]({picture.name})")


def _check_names(suite: Suite, rows: Sequence[str], tasks: Sequence[str]) -> None:
    known = {
        "rows": {row for chapter in suite.chapters for row in chapter.cases()},
        "tasks": {task for chapter in suite.chapters for task in chapter.tasks},
    }
    for option, names in (("rows", rows), ("tasks", tasks)):
        for name in names:
            if name not in known[option]:
                choice = ", ".join(sorted(known[option]))
                raise ConfigError(f"--{option} {name!r} is not one of {choice}")


def _chapter(measured: Measured) -> Iterator[str]:
    chapter = measured.chapter
    level, pairs = measured.at_equal_cost(), measured.beside()
    words = said({k: d for k, d in {**level, **pairs}.items() if k[0] not in measured.floors()})
    yield from ("", *wrap(" ".join(_summary(measured, words)), 100))
    if chapter.frontier:
        yield from ("", "### Over all tasks", "", over_all(measured))
    for task, cells in measured.cells.items():
        yield from ("", f"### {task}", "")
        front = measured.frontier(task) if chapter.frontier else []
        table = [
            {
                "row": row,
                **_figures(chapter, cells, cell),
                **({"frontier": "yes" if row in front else ""} if chapter.frontier else {}),
                **_control(chapter, level, words, task, row),
            }
            for row, cell in cells.items()
        ]
        yield pd.DataFrame(table).fillna("").to_markdown(index=False, disable_numparse=True)
        if sweep := {row: cells[row] for row in chapter.sweep if row in cells}:
            best = max(cell.accuracy for cell in cells.values())
            yield from ("", *wrap(f"{_best_of(sweep)} {_summed_up(sweep, best)}", 100))
        if quotas := {row: cells[row] for row in chapter.per_step if row in cells}:
            yield from ("", *wrap(_parallelisability(quotas), 100))
    if pairs:
        yield from ("", "### Beside the simpler row", "")
        yield _pairs(pairs, words)
    if chapter.same_tokens:
        yield from ("", "### What is to be reproduced token by token", "")
        yield _reproduced(measured)
    for row, reason in measured.refused.items():
        yield from ("", f"Refused: {row} ({reason}).")


def _best_of(sweep: Mapping[str, Cell]) -> str:
    cells = sweep.values()
    tries = [[(float(bool(s.correct)), float(s.nfe)) for s in cell.samples] for cell in cells]
    score, nfe = oracle(tries)
    canvas = max(len(sample.tokens) for cell in cells for sample in cell.samples)
    points = [(canvas / cell.nfe, cell.accuracy) for cell in cells]
    return (
        f"Every sample with its best of {', '.join(sweep)} (ParallelBench's oracle, which looks at "
        f"the labels): {score:.3f} at {nfe:.2f} forwards. Area under their front, accuracy over 1 "
        f"to {canvas} positions per forward: {area(points, canvas):.2f} of {canvas - 1}."
    )


def _summed_up(sweep: Mapping[str, Cell], best: float) -> str:
    settings = [Setting.of(cell.samples) for cell in sweep.values()]
    under, *at = speeds(settings, 100 * best, interpolate=True).items()
    return (
        "Accuracy under parallelism (AUP of the d3LLM project, over tokens before the end): "
        f"{under[1]}. Most positions per forward at an accuracy of x % (ParallelBench's PBx, "
        f"interpolated): {', '.join(f'{name} {speed}' for name, speed in at)}."
    )


def _parallelisability(quotas: Mapping[str, Cell]) -> str:
    """Of rows that decide a fixed number of positions per forward."""
    scores = {s.per_forward: s.score for s in (Setting.of(c.samples) for c in quotas.values())}
    return (
        f"Parallelisability over {', '.join(quotas)}, items per step weighted by their accuracy "
        f"(ParallelBench's figure 6): {parallelisability(scores):.2f}; a flat accuracy would give "
        f"{fmean(scores):.2f}."
    )


def over_all(measured: Measured) -> str:
    """Rows by the number of tasks on whose frontier they are, then by their forwards."""
    table = []
    for row in dict.fromkeys(row for cells in measured.cells.values() for row in cells):
        cells = {t: of_task[row] for t, of_task in measured.cells.items() if row in of_task}
        front = [task for task in cells if row in measured.frontier(task)]
        nfe = fmean(cell.nfe for cell in cells.values())
        line = {
            "row": row,
            "tasks": str(len(cells)),
            "on the frontier of": ", ".join(front),
            "mean accuracy": f"{fmean(cell.accuracy for cell in cells.values()):.3f}",
            "mean NFE": f"{nfe:.2f}",
        }
        table.append((-len(front), nfe, line))
    ordered = [line for *_, line in sorted(table, key=lambda entry: entry[:2])]
    return pd.DataFrame(ordered).to_markdown(index=False, disable_numparse=True)


def _figures(chapter: Chapter, cells: Mapping[str, Cell], cell: Cell) -> dict[str, str]:
    first, found = next(iter(cells.values())), {}
    for name in chapter.columns:
        beside = name in BESIDE
        found[name] = BESIDE[name].show(cell, first) if beside else COLUMNS[name].show(cell)
    if chapter.oracle is not None and chapter.oracle in cells:
        start, end = first.nfe, cells[chapter.oracle].nfe
        found["gap closed"] = f"{(start - cell.nfe) / (start - end):.1%}" if start != end else ""
    return found


Differences = Mapping[tuple[str, ...], Difference]
Words = Mapping[tuple[str, ...], Verdict]


def _control(
    chapter: Chapter, level: Differences, words: Words, task: str, row: str
) -> dict[str, str]:
    if not chapter.curve or row in chapter.curve:
        return {}
    if (task, row) not in level:
        return {"at equal forwards": "no control of this cost"}
    difference = level[task, row]
    return {
        "at equal forwards": str(difference),
        "word": spelled(difference, words.get((task, row))),
    }


def _pairs(pairs: Differences, words: Words) -> str:
    table = [
        {
            "task": task,
            "row": row,
            "beside": other,
            "forwards": f"{difference.forwards:.2f} of its",
            "accuracy": str(difference),
            "word": spelled(difference, words.get((task, row, other))),
        }
        for (task, row, other), difference in pairs.items()
    ]
    return pd.DataFrame(table).to_markdown(index=False, disable_numparse=True)


def _reproduced(measured: Measured) -> str:
    table = []
    for task, cells in measured.cells.items():
        for row, reference in measured.chapter.same_tokens.items():
            if row not in cells or reference not in cells:
                continue
            pairs = list(zip(cells[row].samples, cells[reference].samples, strict=True))
            table.append(
                {
                    "task": task,
                    "row": row,
                    "reference": reference,
                    "samples": len(pairs),
                    "same tokens": sum(a.tokens == b.tokens for a, b in pairs),
                    "more forwards": sum(a.nfe > b.nfe for a, b in pairs),
                }
            )
    return pd.DataFrame(table).to_markdown(index=False)


def _summary(measured: Measured, words: Words) -> Iterator[str]:
    """What a reader can take away, no more than the tests carry."""
    differences = {**measured.at_equal_cost(), **measured.beside()}
    kinds = {2: "the control of equal cost", 3: "the simpler row"}
    for length, beside in kinds.items():
        tested = {key: word for key, word in words.items() if len(key) == length}
        if not tested:
            continue
        counts = []
        for word in (Verdict.BETTER, Verdict.WORSE):
            rows = [
                f"{key[1]} on {key[0]} {differences[key].difference:+.2f}"
                for key, given in tested.items()
                if given is word
            ]
            counts.append(f"{len(rows)} {word}" + (f" ({'; '.join(rows)})" if rows else ""))
        equal = sum(word is Verdict.EQUAL for word in tested.values())
        counts.append(f"{equal} equal within {measured.margin:g}")
        undecided = [differences[key] for key, w in tested.items() if w is Verdict.UNDECIDED]
        shown = sorted(d.detectable for d in undecided if d.detectable is not None)
        # Of the others these are too few samples to show any difference.
        half = (
            f" ({len(shown)} of them can show, the median from {shown[len(shown) // 2]:.2f} on)"
            if shown
            else ""
        )
        counts.append(f"{len(undecided)} undecided{half}")
        yield f"**Beside {beside}**, of {len(tested)} comparisons: {', '.join(counts)}."
    for task, accuracy in measured.floors().items():
        yield f"On {task} the reference is at {accuracy:.2f}: no loss can show, nothing is tested."
    for task, accuracy in measured.ceilings().items():
        yield f"On {task} the reference is at {accuracy:.2f}: hardly any gain can show."

"""Accuracy against forwards."""

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from dllm.metrics.tradeoff import pareto
from dllm.report.cells import Cell
from dllm.report.document import Picture


if TYPE_CHECKING:
    from matplotlib.axes import Axes


def speed_and_quality(
    cells: Mapping[str, Mapping[str, Cell]],
    lines: Mapping[str, tuple[str, Sequence[str]]],
    path: Path,
) -> None:
    """Writes a PNG, a panel per task: the rows of its line (name, rows) joined, every other row as
    a point with its 95 % Wilson interval."""
    import matplotlib

    matplotlib.use("Agg")  # draws into files only
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(cells), figsize=(4.5 * len(cells), 4), layout="constrained", squeeze=False
    )
    for axis, (task, rows) in zip(axes[0], cells.items(), strict=True):
        label, joined = lines[task]
        line = sorted((rows[name] for name in joined if name in rows), key=lambda cell: cell.nfe)
        axis.plot([c.nfe for c in line], [c.accuracy for c in line], "o-", label=label)
        others = [cell for name, cell in rows.items() if name not in joined]
        spread = [
            [c.accuracy - c.metrics["accuracy_low"] for c in others],
            [c.metrics["accuracy_high"] - c.accuracy for c in others],
        ]
        points = ([c.nfe for c in others], [c.accuracy for c in others])
        axis.errorbar(*points, yerr=spread, fmt="s", ms=3, lw=0.6, alpha=0.6, label="other rows")
        _name_axes(axis, task)
    axes[0][0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def frontier(cells: Mapping[str, Cell], task: str, stem: Path) -> Picture:
    """Draws one point per cell, named by its key, with its 95 % Wilson interval, and the line of
    the points that no other one equals or beats in both; `stem`.svg and .png."""
    import matplotlib

    matplotlib.use("Agg")  # draws into files only
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": task}):
        figure, axis = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
        front = pareto([(-cell.nfe, cell.accuracy) for cell in cells.values()])
        best = sorted((-speed, accuracy) for speed, accuracy in front)
        axis.step(*zip(*best, strict=True), "-", where="post", lw=1, alpha=0.6)
        forwards = [cell.nfe for cell in cells.values()]
        middle = sqrt(min(forwards) * max(forwards))
        for name, cell in cells.items():
            spread = [
                [cell.accuracy - cell.metrics["accuracy_low"]],
                [cell.metrics["accuracy_high"] - cell.accuracy],
            ]
            mark = "o" if (-cell.nfe, cell.accuracy) in front else "s"
            axis.errorbar([cell.nfe], [cell.accuracy], yerr=spread, fmt=mark, ms=4, lw=0.7)
            place = (cell.nfe, cell.accuracy)
            # A name on the right would leave the picture: it stands before its point.
            side, align = (-4, "right") if cell.nfe > middle else (4, "left")
            note = axis.annotate(
                name, place, (side, 4), textcoords="offset points", ha=align, size=8
            )
            note.set_parse_math(False)
            note.set_in_layout(False)  # a long name must not squeeze the axes to nothing
        _name_axes(axis, task)
        picture = Picture(
            stem.with_name(f"{stem.name}.svg"),
            stem.with_name(f"{stem.name}.png"),
            f"{task}: accuracy against forwards per sample, with 95 % intervals; the numbers are "
            "those of the table, the line joins the frontier",
        )
        figure.savefig(picture.svg, metadata={"Date": None})
        figure.savefig(picture.png, dpi=110)
    pyplot.close(figure)
    return picture


def _name_axes(axis: "Axes", task: str) -> None:
    axis.set_title(task, parse_math=False)
    axis.set(xlabel="forwards per sample", xscale="log", ylabel="accuracy")
    # 2, 5, 20 instead of powers of ten.
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")

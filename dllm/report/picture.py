"""Accuracy against forwards, one panel per task."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dllm.report.cells import Cell


def speed_and_quality(
    cells: Mapping[str, Mapping[str, Cell]], curve: Sequence[str], path: Path
) -> None:
    """Writes a PNG: the control curve as a line, every other row as a point with its 95 % Wilson
    interval."""
    import matplotlib

    matplotlib.use("Agg")  # draws into files only
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(cells), figsize=(4.5 * len(cells), 4), layout="constrained", squeeze=False
    )
    for axis, (task, rows) in zip(axes[0], cells.items(), strict=True):
        control = sorted((rows[name] for name in curve if name in rows), key=lambda cell: cell.nfe)
        axis.plot([c.nfe for c in control], [c.accuracy for c in control], "o-", label="control")
        others = [cell for name, cell in rows.items() if name not in curve]
        spread = [
            [c.accuracy - c.metrics["accuracy_low"] for c in others],
            [c.metrics["accuracy_high"] - c.accuracy for c in others],
        ]
        points = ([c.nfe for c in others], [c.accuracy for c in others])
        axis.errorbar(*points, yerr=spread, fmt="s", ms=3, lw=0.6, alpha=0.6, label="other rows")
        axis.set(title=task, xlabel="forwards per sample", xscale="log", ylabel="accuracy")
    axes[0][0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

"""What every bench finds, in one form: a table with one line per measurement, one column drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dllm.bench.ratio import Ratio


@dataclass(frozen=True)
class Line:
    """One measurement."""

    name: str
    values: Mapping[str, float]
    """By column; one that is not there has no meaning here."""
    between: tuple[float, float] | None = None
    """Smallest and largest value of the drawn column over the repetitions."""


@dataclass(frozen=True)
class Sheet:
    """A bench that is ready to run: its lines are measured as they are taken."""

    title: str
    text: Sequence[str]
    """What is compared, on what, and the aim: a paragraph each."""
    columns: Mapping[str, str]
    """Name, with its unit, and the format of its numbers."""
    drawn: str
    """Column of the picture."""
    lines: Iterator[Line]

    def cells(self, line: Line) -> list[str]:
        """The numbers as they are shown, empty where there is none, and the span last."""
        shown = [
            form.format(line.values[name]) if name in line.values else ""
            for name, form in self.columns.items()
        ]
        form = self.columns[self.drawn]
        spans = [] if line.between is None else [form.format(end) for end in line.between]
        return [*shown, " to ".join(spans)]

    def told(self, line: Line) -> str:
        """The line for a terminal."""
        *shown, span = self.cells(line)
        parts = [f"{name} {cell}" for name, cell in zip(self.columns, shown, strict=True) if cell]
        return f"{line.name}: {', '.join(parts)}{f' (from {span})' if span else ''}"


def faster(name: str, timing: Ratio, column: str, **values: float) -> Line:
    """A line whose drawn column is a ratio of seconds."""
    return Line(name, {column: timing.ratio, **values}, (timing.low, timing.high))

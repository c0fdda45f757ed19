"""A bench's page: its table as Markdown and JSON and a picture of one column, all with the command,
the commit and what the machine reached in the same run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dllm.bench.sheet import Line, Sheet
from dllm.errors import RunError
from dllm.report.document import Document, Entry, Picture, Section, Table, markdown


ENDINGS = (".md", ".json", ".png", ".svg")


def write(
    folder: Path,
    name: str,
    command: str,
    sheet: Sheet,
    lines: Sequence[Line],
    complete: bool,
    facts: dict[str, Any],
) -> list[Path]:
    """NAME.md, .json, .png and .svg in the folder; `complete`: the bench came to its end, else a
    whole page stays, and what was measured is NAME.stopped. Raises `RunError`, the figures written,
    where no picture can be drawn."""
    if not complete and _is_whole(folder / f"{name}.json"):
        name = f"{name}.stopped"
    measured = [
        {"name": line.name, **line.values}
        | ({"smallest and largest": line.between} if line.between is not None else {})
        for line in lines
    ]
    found = {
        "bench": name.removesuffix(".stopped"),
        "command": command,
        "complete": complete,
        "machine": facts,
        "lines": measured,
    }
    picture, failed = None, ""
    try:
        picture = _drawn(folder / name, sheet, lines)
    except Exception as error:  # of the user's settings of matplotlib, each its own
        failed = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    data = folder / f"{name}.json"
    data.write_text(json.dumps(found, indent=1) + "\n")
    rows = [list(map(Entry, [line.name, *sheet.cells(line)])) for line in lines]
    columns = ["", *sheet.columns, "smallest to largest"]
    spanned = any(line.between is not None for line in lines)
    if not spanned:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    told = [*sheet.text, f"Measured: {machine(facts)}."]
    if spanned:
        told.append(
            f"The span is that of: {sheet.drawn}, over the repetitions. Every column is a median "
            "of its own: a ratio of pairs is not exactly the ratio of two columns beside it."
        )
    if not complete:
        told.insert(0, f"Stopped before its end, after {len(lines)} lines.")
    document = Document(
        sheet.title, command, [Section("Figures", told, Table(columns, rows), picture)]
    )
    page = folder / f"{name}.md"
    page.write_text(markdown(document))
    if picture is None:
        raise RunError(f"{page} has no picture: {failed}")
    return [page, data, picture.png, picture.svg]


def check_writable(folder: Path, name: str) -> None:
    """Raises `OSError` where a page that is there can't be written over."""
    for ending in ENDINGS:
        path = folder / f"{name}{ending}"
        if path.exists():
            path.open("ab").close()


def _is_whole(data: Path) -> bool:
    """Whether the page's figures are there and of a bench that came to its end."""
    try:
        return json.loads(data.read_text())["complete"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def machine(facts: dict[str, Any]) -> str:
    """The facts on one line."""
    parts = [f"{k} {v}" for k, v in facts.items() if not isinstance(v, dict)]
    parts += [
        f"{k} {', '.join(f'{a} {b}' for a, b in v.items())}"
        for k, v in facts.items()
        if isinstance(v, dict)
    ]
    return "; ".join(parts)


def _drawn(stem: Path, sheet: Sheet, lines: Sequence[Line]) -> Picture:
    """A bar per line that has the drawn column, the span over its repetitions beside it."""
    import matplotlib

    matplotlib.use("Agg")  # draws into files only
    from matplotlib import pyplot

    shown = [line for line in lines if sheet.drawn in line.values]
    with matplotlib.rc_context({"svg.hashsalt": stem.name}):
        figure, axis = pyplot.subplots(figsize=(8, 1 + 0.3 * len(shown)), layout="constrained")
        values = [line.values[sheet.drawn] for line in shown]
        axis.barh(range(len(shown)), values, height=0.6, alpha=0.7)
        for row, line in enumerate(shown):
            if line.between is not None:
                axis.plot(line.between, (row, row), "k-", lw=1)
        axis.set_yticks(range(len(shown)), [line.name for line in shown], parse_math=False)
        axis.invert_yaxis()
        axis.set_xlabel(sheet.drawn)
        axis.set_title(sheet.title)
        described = f"{sheet.title}: {sheet.drawn} of every line of the table"
        svg, png = (stem.with_name(f"{stem.name}{ending}") for ending in (".svg", ".png"))
        picture = Picture(svg, png, described)
        figure.savefig(picture.svg, metadata={"Date": None})
        figure.savefig(picture.png, dpi=110)
    pyplot.close(figure)
    return picture

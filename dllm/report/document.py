"""A report as data: sections of text, tables and pictures, written as one HTML page, as Markdown.

The page needs nothing but itself: styles, script and pictures are inside. Everything that a run
holds is text and never markup, in either form.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class Entry:
    """What stands in a table's cell."""

    text: str
    key: float | str | None = None
    """What a column is sorted by; None = the text."""


@dataclass(frozen=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]


@dataclass(frozen=True)
class Picture:
    """Drawn once, kept as files beside the page and inside it."""

    svg: Path
    png: Path
    description: str
    """For those who can't see it."""


@dataclass(frozen=True)
class Section:
    title: str
    text: Sequence[str] = ()
    """Paragraphs."""
    table: Table | None = None
    picture: Picture | None = None
    level: int = 2


@dataclass(frozen=True)
class Document:
    title: str
    command: str
    """What makes it again."""
    sections: Sequence[Section] = field(default_factory=list)


def number(value: float | None, form: str = "{:.2f}") -> Entry:
    """A number as it is shown, sorted by its full value; nothing for None."""
    return Entry("", float("-inf")) if value is None else Entry(form.format(value), float(value))


def html(document: Document) -> str:
    environment = Environment(
        loader=PackageLoader("dllm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawing"] = _drawing
    return environment.get_template("report.html").render(document=document)


def _drawing(picture: Picture) -> Markup:
    """The SVG element without the declarations before it, which name an address."""
    text = picture.svg.read_text()
    return Markup(text[text.index("<svg") :])


def markdown(document: Document) -> str:
    lines = [f"# {document.title}", "", f"`{document.command}`"]
    for section in document.sections:
        lines += ["", f"{'#' * section.level} {plain(section.title)}"]
        for paragraph in section.text:
            lines += ["", plain(paragraph)]
        if section.picture is not None:
            picture = section.picture
            lines += ["", f"![{plain(picture.description)}]({picture.png.name})"]
        if section.table is not None:
            lines += ["", *_pipes(section.table)]
    return "\n".join(lines) + "\n"


def _pipes(table: Table) -> Iterable[str]:
    yield f"| {' | '.join(map(plain, table.columns))} |"
    yield f"|{'---|' * len(table.columns)}"
    for row in table.rows:
        yield f"| {' | '.join(plain(entry.text) for entry in row)} |"


_SPECIAL = str.maketrans({sign: f"&#{ord(sign)};" for sign in "\\`*|"} | {"\n": " ⏎ ", "\r": ""})


def plain(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no link, no address that is fetched."""
    return escape(text, quote=False).translate(_SPECIAL).replace("](", "]&#40;")

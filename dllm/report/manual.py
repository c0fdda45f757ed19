"""The parts of `docs/methods` that are made from elsewhere: options, published rows, suites.

A page names its samplers and its papers in comments and holds one region between two marks; all
else on it is written by hand.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from dllm.errors import ConfigError
from dllm.report.document import plain
from dllm.report.published import FOLDER, MARKS, publications
from dllm.report.suite import Suite, load_suite, suites


DOCS = Path("docs/methods")
START = "<!-- made by python -m scripts.report docs; do not edit -->"
END = "<!-- until here -->"
NAMED = re.compile(r"<!-- (samplers|published): ([^\n]*?) -->")
_OPTION = re.compile(r"^(\s*)([\w.@]+):(?:\s+(.*?))?(?:\s+#\s+(.*))?$")


@dataclass(frozen=True)
class Knob:
    """An option of a configuration file."""

    name: str
    default: str
    meaning: str


def knobs(path: str) -> list[Knob]:
    """Options of `conf/<path>.yaml` in its order, as they are written there."""
    lines = files("conf").joinpath(f"{path}.yaml").read_text().splitlines()
    found: list[Knob] = []
    above: list[tuple[int, str]] = []
    for line in lines:
        match = _OPTION.match(line)
        if match is None or line.startswith("#") or "defaults" in line[:8]:
            continue
        indent, name, default, meaning = len(match[1]), match[2], match[3] or "", match[4] or ""
        while above and above[-1][0] >= indent:
            above.pop()
        full = ".".join([*(part for _, part in above), name])
        if default == "":
            above.append((indent, name))
        elif name != "_target_":
            found.append(Knob(full, default, meaning))
    return found


def parts(path: str) -> list[str]:
    """Options of other files that a configuration starts from, as its defaults list has them."""
    text = files("conf").joinpath(f"{path}.yaml").read_text()
    listed = re.search(r"^defaults:\n((?:  - .*\n)+)", text, re.MULTILINE)
    entries = listed[1].splitlines() if listed else []
    return [entry.removeprefix("  - ").split("  #")[0].strip() for entry in entries]


def written(page: Path) -> str:
    """The page's text with its made region made anew.

    Raises `ConfigError` for a page without marks.
    """
    text = page.read_text()
    if START not in text or END not in text:
        raise ConfigError(f"{page} has no region between {START} and {END}")
    named = {kind: names.split() for kind, names in NAMED.findall(text)}
    head, rest = text.split(START)
    lines = [START, *_made(named.get("samplers", []), named.get("published", [])), "", END]
    return head + "\n".join(lines) + rest.split(END)[1]


def write(folder: Path = DOCS) -> list[Path]:
    """Makes all pages anew; the paths of those that changed."""
    changed = []
    for page in sorted(folder.glob("*.md")):
        text = written(page)
        if text != page.read_text():
            page.write_text(text)
            changed.append(page)
    return changed


def _made(samplers: list[str], papers: list[str]) -> Iterator[str]:
    yield from ("", "## Knobs")
    for name in samplers:
        yield from ("", f"`sampler={name}` (conf/sampler/{name}.yaml)", "")
        given = [entry for entry in parts(f"sampler/{name}") if entry != "_self_"]
        if given:
            yield from (f"Starts from {', '.join(f'`{entry}`' for entry in given)}.", "")
        rows = [
            (f"`sampler.{k.name}`", f"`{k.default}`", k.meaning) for k in knobs(f"sampler/{name}")
        ]
        yield from _table(("option", "default", "meaning"), rows)
    yield from ("", "## Published")
    if not papers:
        yield from ("", "No figures of the authors are at hand.")
    for publication in publications(FOLDER, papers) if papers else ():
        yield from ("", f"{publication.paper}. Source: {publication.source}", "")
        rows = [
            (
                row.model,
                row.benchmark,
                row.setting,
                "" if row.accuracy is None else f"{row.accuracy:g}",
                row.speed or "",
                "" if row.speedup is None else f"{row.speedup:g}",
                MARKS[row.mark],
            )
            for row in publication.rows
        ]
        columns = ("model", "benchmark", "setting", "score", "speed", "speed-up", "rests on")
        yield from _table(columns, rows)
    yield from ("", "## Measured by", "")
    measured = list(_measured(set(samplers)))
    if measured:
        yield from measured
    else:
        yield "No suite of `conf/suite`."


def _measured(samplers: set[str]) -> Iterator[str]:
    """Suites with rows of these samplers."""
    chosen = {f"sampler={name}" for name in samplers}
    chosen |= {f"sampler@sampler.base={name}" for name in samplers}
    for name, suite in _suites().items():
        rows = dict.fromkeys(
            row
            for chapter in suite.chapters
            for row, options in chapter.cases().items()
            if chosen & set(options)
        )
        if rows:
            listed = "; ".join(rows)
            command = f"python -m scripts.report suite {name}"
            yield f"- `{command}`, which writes `{suite.output}`: {plain(listed)}"


@cache
def _suites() -> dict[str, Suite]:
    return {name: load_suite(name) for name in suites()}


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    if not rows:
        yield "No options of its own."
        return
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"

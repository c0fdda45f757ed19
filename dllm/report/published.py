"""Published figures of the methods, each with its setting and how sure it is.

One file per paper in results/published: data, not code, so that a correction needs no release.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from yaml import YAMLError

from dllm.errors import ConfigError


MARKS = {
    "O": "official code or documents",
    "P": "paper",
    "R": "another group's re-implementation",
    "S": "second hand: not to be quoted as the authors'",
    "inferred": "our conclusion",
}
FOLDER = Path(__file__).parents[2] / "results" / "published"
"""Of a checkout; an installed package brings none."""
_NEEDED, _OPTIONAL = {"model", "benchmark", "setting", "mark"}, {"accuracy", "speed", "speedup"}


@dataclass(frozen=True)
class PublishedRow:
    """One figure as printed by its source."""

    model: str
    benchmark: str
    setting: str
    mark: str
    """Key of `MARKS`."""
    accuracy: float | None = None
    """Percent, or the benchmark's score."""
    speed: str | None = None
    """With the definition that the source uses; no two are comparable without it."""
    speedup: float | None = None
    """Over the source's own baseline."""


@dataclass(frozen=True)
class Publication:
    """All rows of one paper."""

    name: str
    sampler: str
    """Configuration that reproduces the rows."""
    paper: str
    source: str
    rows: tuple[PublishedRow, ...]


def read(path: Path) -> Publication:
    """Raises `ConfigError` for a file that lacks a field or has an unknown one."""
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    if not isinstance(raw, dict) or set(raw) != {"sampler", "paper", "source", "rows"}:
        raise ConfigError(f"{path} must hold exactly sampler, paper, source, rows")
    rows = tuple(_row(path, number, row) for number, row in enumerate(raw["rows"]))
    return Publication(path.stem, raw["sampler"], raw["paper"], raw["source"], rows)


def _row(path: Path, number: int, row: dict[str, Any]) -> PublishedRow:
    missing, unknown = _NEEDED - set(row), set(row) - _NEEDED - _OPTIONAL
    if missing or unknown:
        raise ConfigError(
            f"{path} row {number}: missing {sorted(missing)}, unknown {sorted(unknown)}"
        )
    if row["mark"] not in MARKS:
        raise ConfigError(
            f"{path} row {number}: mark={row['mark']} is not one of {', '.join(MARKS)}"
        )
    return PublishedRow(**row)


def publications(folder: Path, names: Sequence[str] = ()) -> Iterator[Publication]:
    """The named files, or all of them by name.

    Raises `ConfigError` for a name without a file and for a folder that has none.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not known:
        raise ConfigError(f"{folder} holds no .yaml file of published figures")
    for name in names or known:
        if name not in known:
            raise ConfigError(f"{name} has no file in {folder}; it holds {', '.join(known)}")
        yield read(known[name])


def show(publication: Publication, console: Console) -> None:
    title = f"{publication.name}: {publication.paper} (sampler={publication.sampler})"
    table = Table(title=title, caption=publication.source, title_justify="left")
    for column in ("model", "benchmark", "setting"):
        table.add_column(column, overflow="fold")
    for column in ("accuracy", "speed", "speed-up", "mark"):
        table.add_column(column, justify="right")
    for row in publication.rows:
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.2f}"
        speedup = "" if row.speedup is None else f"{row.speedup:.2f}"
        speed = row.speed or ""
        # Brackets of a definition tag are no markup.
        cells = (row.model, row.benchmark, row.setting, accuracy, speed, speedup, row.mark)
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console.print(table)

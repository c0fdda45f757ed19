"""A report suite: which runs make a page, and what stands beside what. One YAML in `conf/suite`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from itertools import product

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dllm.config import choices
from dllm.errors import ConfigError


@dataclass(frozen=True)
class Chapter:
    """Rows decoded on the same samples of each task, and compared there."""

    title: str
    text: str
    columns: list[str]
    """Names in `dllm.report.columns`."""
    tasks: dict[str, list[str]]
    """Heading -> options of `scripts.run`."""
    rows: dict[str, list[str]]
    """Label -> options; the first row is what floors and ceilings are read from."""
    options: list[str] = field(default_factory=list)
    """Options of all rows."""
    across: dict[str, list[str]] = field(default_factory=dict)
    """Variants that every row is decoded with (caches); empty = the row alone."""
    further_rows: dict[str, list[str]] = field(default_factory=dict)
    """Rows that are not varied."""
    every_sampler: bool = False
    """Whether each file of `conf/sampler` that no row names is a row with its own defaults."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Sampler that `every_sampler` leaves out -> why."""
    curve: list[str] = field(default_factory=list)
    """Rows that span the control: every other row is compared with the mixture of two of them that
    makes as many forwards."""
    beside: dict[str, list[str]] = field(default_factory=dict)
    """Row -> simpler ones that it is compared with; `control` is the run's own matched one."""
    same_tokens: dict[str, str] = field(default_factory=dict)
    """Row -> the one whose tokens it is to reproduce."""
    information: list[str] = field(default_factory=list)
    """Rows whose bits per round are drawn, a picture per task (trace=true)."""
    frontier: bool = False
    """Whether the rows that no other one equals or beats in accuracy and forwards are marked,
    drawn, and counted over the tasks."""
    oracle: str | None = None
    """Row whose forwards bound the gap to the first row."""
    sweep: list[str] = field(default_factory=list)
    """Rows of which every sample's best one is told, an upper bound for a choice per sample, and
    their area, AUP and speeds at fixed accuracies."""
    per_step: list[str] = field(default_factory=list)
    """Rows with steps of a fixed size that are summed up as the task's parallelisability."""

    def cases(self) -> dict[str, list[str]]:
        """Label -> all options of a row, in the page's order."""
        varied = self.across or {"": []}
        found = {
            ", ".join(filter(None, (row, variant))): [*options, *more]
            for (row, options), (variant, more) in product(self.rows.items(), varied.items())
        }
        found |= self.further_rows | self._unnamed()
        return {label: [*self.options, *options] for label, options in found.items()}

    def _unnamed(self) -> dict[str, list[str]]:
        if not self.every_sampler:
            return {}
        named = {
            option.removeprefix("sampler=")
            for options in (*self.rows.values(), *self.further_rows.values())
            for option in options
        }
        left_out = named | self.skipped.keys()
        return {name: [f"sampler={name}"] for name in choices("sampler") if name not in left_out}


@dataclass(frozen=True)
class Exact:
    """Rules decoded on exact probabilities, beside closed forms."""

    title: str
    text: str
    kinds: list[str]
    """Of `dllm.report.exact.ORACLES`."""
    items: list[int]
    """Lengths of the lists."""
    count: int
    """Samples per row."""
    per_step: list[int]
    """Items per step; those that divide the length."""
    rows: dict[str, list[str]]
    """Label -> options of rules with steps of a fixed size."""
    adaptive: dict[str, list[str]]
    """Of rules that choose it."""


@dataclass(frozen=True)
class Suite:
    """One page."""

    name: str
    """What the command that makes it calls it: the file's name under conf/suite."""
    title: str
    text: str
    output: str
    """Markdown file; pictures lie beside it."""
    limit: int
    """Samples per task."""
    margin: float
    """Accuracies that differ by less count as equal, if the samples suffice to say so."""
    chapters: list[Chapter]
    exact: list[Exact] = field(default_factory=list)


def suites() -> list[str]:
    return choices("suite")


def load_suite(name: str) -> Suite:
    """Raises `ConfigError` for an unknown name and for a file with missing or unknown fields."""
    if name not in suites():
        raise ConfigError(f"suite {name} is not one of {', '.join(suites())}")
    path = resources.files("conf").joinpath("suite", f"{name}.yaml")
    try:
        given = OmegaConf.create(path.read_text())
        suite = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(Suite), given, {"name": name})
        )
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"suite {name}: {str(error).splitlines()[0]}") from None
    assert isinstance(suite, Suite)
    for chapter in suite.chapters:
        for label in _labels(chapter):
            if label not in chapter.cases():
                raise ConfigError(f"suite {name}, {chapter.title}: there is no row {label!r}")
    return suite


def _labels(chapter: Chapter) -> Iterator[str]:
    """Every row that a comparison names."""
    yield from chapter.curve
    yield from chapter.information
    yield from filter(None, [chapter.oracle])
    yield from chapter.sweep
    yield from chapter.per_step
    for ours, others in (*chapter.beside.items(), *chapter.same_tokens.items()):
        yield ours
        yield from (o for o in ([others] if isinstance(others, str) else others) if o != CONTROL)


CONTROL = "control"

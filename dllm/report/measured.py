"""A run beside the published figure that its preset names."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from omegaconf import DictConfig, OmegaConf

from dllm.config import compose
from dllm.report.existing import Run
from dllm.report.plan import published_row
from dllm.report.published import FOLDER, MARKS
from dllm.report.recipe import differences, recipe
from dllm.report.tables import ratio


def against_published(run: Run) -> Iterator[dict[str, str]]:
    """Columns of its line in the table; none for a run without a preset.

    Raises `ConfigError` where the preset names no row.
    """
    wanted = run.config.get("published")
    if wanted is None or not FOLDER.is_dir():
        return
    row, paper, _ = published_row(wanted)
    m, versus = run.metrics, run.summary.get("versus_baseline")
    score = "" if row.accuracy is None else f"{row.accuracy:g}"
    measured = ""
    if m.accuracy is not None:
        low, high = 100 * m.accuracy_low, 100 * m.accuracy_high
        measured = f"{100 * m.accuracy:.1f} [{low:.1f}, {high:.1f}] (n = {m.n})"
    yield {
        "run": run.label,
        "paper": f"{paper}: {row.model}, {row.benchmark}, {row.setting}",
        "source": MARKS[row.mark],
        "published score": score,
        "measured score": measured,
        "published speed": row.speed or "",
        "measured TPF": f"{m.tpf:.2f}",
        "published speed-up": "" if row.speedup is None else f"{row.speedup:g}",
        "measured speed-up in forwards": "" if versus is None else ratio(versus["nfe_speedup"]),
        "other than the preset": ", ".join(_changed(run, wanted)),
    }


def _changed(run: Run, wanted: str) -> list[str]:
    """Options that the run has otherwise than the preset: `name=value (preset: value)`."""
    name = _presets()[wanted]
    preset, own = recipe(compose([f"experiment={name}"]), {}, {}), recipe(run.config, {}, {})
    found = differences([own, preset])
    return [f"{d.name}={d.values[0]} (preset: {d.values[1]})" for d in found]


@cache
def _presets() -> dict[str, str]:
    """Published row -> the first preset of `conf/experiment` that names it."""
    found: dict[str, str] = {}
    for folder in sorted(files("conf").joinpath("experiment").iterdir(), key=lambda f: f.name):
        for file in sorted(folder.iterdir(), key=lambda f: f.name) if folder.is_dir() else ():
            config = OmegaConf.create(file.read_text())
            assert isinstance(config, DictConfig)
            if config.get("published") is not None:
                found.setdefault(config.published, f"{folder.name}/{file.name[:-5]}")
    return found

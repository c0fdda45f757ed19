"""A page on Weights & Biases that compares the runs of a project.

Built of the names that `dllm.runs.tracked` sends; checked by the library before anything is sent.
"""

from importlib import import_module
from typing import Any

from dllm.errors import ConfigError, RunError
from dllm.report.comparison import READING
from dllm.tracking.wandb_tracker import has_key


DECODED = {"nfe": "forwards per sample", "tpf": "tokens per forward", "accuracy": "accuracy"}
"""Numbers of the summary that are drawn."""
LIVE = ("sample/accuracy", "sample/tpf", "sample/nfe")
PER_STEP = ("denoising_step/committed", "denoising_step/score", "denoising_step/sequences")
MEDIA = ("accuracy", "bits", "replay")
"""Pictures and pages among the exhibits of a run."""


def publish(project: str, entity: str | None) -> str:
    """Saves the page in the project; returns its address.

    Raises `ConfigError` without the library or a key, `RunError` where the server can't be reached.
    """
    report(project, entity or "")  # what is wrong with it is told before anything is sent
    if not has_key():
        raise ConfigError(
            f"--project {project}: a report is kept by the server and needs a key: set "
            "WANDB_API_KEY or call `wandb login`; offline, python -m scripts.report RUN... makes a "
            "page here"
        )
    import wandb
    from requests import RequestException
    from wandb.errors import Error

    try:
        entity = entity or wandb.Api().default_entity
        if entity is None:
            raise ConfigError("--entity must be given: the account has no default")
        return report(project, entity).save().url
    except (Error, RequestException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"--project {project}: the report can't be saved: {reason}") from None


def report(project: str, entity: str) -> Any:
    """The page as the library's own object. Raises `ConfigError` where that is not installed."""
    try:
        parts: Any = import_module("wandb_workspaces.reports.v2")
    except ImportError:
        raise ConfigError(
            "wandb needs an optional package: pip install 'dllm-decode[reports]'"
        ) from None
    runs = parts.Runset(entity=entity, project=project, name="runs")
    lines = [
        parts.LinePlot(title=name, x=axis, y=[name])
        for axis, names in (("sample", LIVE), ("denoising_step", PER_STEP))
        for name in names
    ]
    columns = [
        parts.ParallelCoordinatesPlotColumn(parts.Config(name))
        for name in ("sampler._target_", "gen_length")
    ] + [
        parts.ParallelCoordinatesPlotColumn(parts.SummaryMetric(name), display_name=text)
        for name, text in DECODED.items()
    ]
    panels = [
        parts.ScatterPlot(
            title="accuracy against forwards per sample",
            x=parts.SummaryMetric("nfe"),
            y=parts.SummaryMetric("accuracy"),
            log_x=True,
        ),
        *(
            parts.BarPlot(title=text, metrics=[parts.SummaryMetric(n)])
            for n, text in DECODED.items()
        ),
        parts.ParallelCoordinatesPlot(columns=columns),
    ]
    blocks = [
        parts.H1("Decoding methods"),
        parts.MarkdownBlock("\n\n".join(READING[1:2])),
        parts.MarkdownBlock(
            "Nothing here is tested: `python -m scripts.report RUN...` pairs the samples and says "
            "what the differences carry."
        ),
        parts.TableOfContents(),
        parts.H2("Speed and quality"),
        parts.PanelGrid(runsets=[runs], panels=panels),
        parts.H2("While the runs went"),
        parts.PanelGrid(runsets=[runs], panels=lines),
        parts.H2("What differs"),
        parts.PanelGrid(runsets=[runs], panels=[parts.RunComparer(diff_only="split")]),
        parts.H2("Samples, pictures, replays"),
        parts.PanelGrid(
            runsets=[runs],
            panels=[
                parts.WeavePanelSummaryTable(table_name="samples"),
                parts.MediaBrowser(media_keys=list(MEDIA)),
            ],
        ),
    ]
    return parts.Report(
        project=project, entity=entity, title="Decoding methods", blocks=blocks, width="fluid"
    )

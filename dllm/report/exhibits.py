"""Pictures of a finished run and the replay of a sample, kept in its folder and sent to its
tracker."""

from pathlib import Path

from dllm.report.bits import information_per_round
from dllm.report.existing import read_runs
from dllm.report.groups import grouped
from dllm.report.picture import frontier
from dllm.report.replay.page import page
from dllm.report.replay.source import beside


FOLDER = "exhibits"
"""Inside the run's."""


def exhibits(folder: Path) -> list[Path]:
    """Writes what can be made of the run: accuracy against forwards beside its baseline; with
    traces bits per round and the replay."""
    runs = read_runs([folder])
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    made = []
    (group,) = grouped(runs, None)
    cells = {
        f"{number} {run.folder.path.parent.name}": run.graded
        for number, run in group.runs.items()
        if run.graded.samples
    }
    if len(cells) > 1:  # one point shows nothing
        picture = frontier(cells, group.title, target / "accuracy")
        made += [picture.svg, picture.png]
    if runs[0].bits is not None:
        information_per_round([runs[0].bits], target / "bits.png")
        made.append(target / "bits.png")
    if traces := runs[0].folder.traces():
        replay = target / "replay.html"
        replay.write_text(page(beside([folder], traces[0].sample_id)))
        made.append(replay)
    return made

"""Weights & Biases, offline by default.

Offline runs cannot be resumed by wandb itself, so that a resumed run logs everything again from
the run folder under the same id: `wandb sync` of all parts gives one complete run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dllm.tracking.tracker import RunInfo


@dataclass
class WandbTracker:
    project: str
    entity: str | None
    mode: Literal["offline", "online"]
    tags: list[str]
    _run: Any = field(default=None, init=False, repr=False)
    _axes: set[str] = field(default_factory=set, init=False, repr=False)

    def start(self, run: RunInfo) -> None:
        import wandb  # only a run that is tracked pays for the import

        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=str(run.folder),
            id=run.fingerprint,
            name=run.label,
            group=run.group,
            job_type="decode",
            tags=[*self.tags, *run.tags],
            config=dict(run.config),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        if axis not in self._axes:
            self._axes.add(axis)
            self._run.define_metric(axis)
            self._run.define_metric(f"{axis}/*", step_metric=axis)
        self._run.log({axis: step, **{f"{axis}/{name}": value for name, value in values.items()}})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        columns: list[Any] = list(rows[0]) if rows else []
        data: list[Any] = [[row[column] for column in columns] for row in rows]
        self._run.log({name: wandb.Table(columns=columns, data=data)})

    def summary(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None

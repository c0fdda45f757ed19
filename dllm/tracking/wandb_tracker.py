"""Weights & Biases, offline by default.

What the user's environment says (`WANDB_MODE`, `WANDB_PROJECT`, `WANDB_DIR`, ...) holds where the
option is null; an option that is given wins.

Offline runs cannot be resumed by wandb itself, so that a resumed run logs everything again from
the run folder under the same id: `wandb sync` of all parts gives one complete run.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dllm.tracking.tracker import RunInfo


@dataclass
class WandbTracker:
    project: str | None
    """null = WANDB_PROJECT, else dllm-decode."""
    entity: str | None
    """null = WANDB_ENTITY, else the account's default."""
    mode: Literal["offline", "online", "disabled"] | None
    """null = WANDB_MODE, else offline."""
    tags: list[str]
    _run: Any = field(default=None, init=False, repr=False)
    _axes: set[str] = field(default_factory=set, init=False, repr=False)

    def start(self, run: RunInfo) -> None:
        import wandb  # only a run that is tracked pays for the import

        if "WANDB_RUN_ID" in os.environ:
            # Parts of a resumed run belong together by their id, cells of a sweep do not.
            print("note: WANDB_RUN_ID is ignored: a run's id is its fingerprint", file=sys.stderr)
        mode = self.mode or (None if "WANDB_MODE" in os.environ else "offline")
        quiet = {"silent": True, "console": "off"}
        self._run = wandb.init(
            project=self.project or _unless_in("WANDB_PROJECT", "dllm-decode"),
            entity=self.entity,
            mode=mode,
            dir=_unless_in("WANDB_DIR", str(run.folder)),
            id=run.fingerprint,
            name=_unless_in("WANDB_NAME", run.label),
            group=_unless_in("WANDB_RUN_GROUP", run.group),
            job_type=_unless_in("WANDB_JOB_TYPE", "decode"),
            tags=[*self.tags, *run.tags, *filter(None, os.getenv("WANDB_TAGS", "").split(","))],
            config=dict(run.config),
            settings=wandb.Settings(
                **{k: v for k, v in quiet.items() if f"WANDB_{k.upper()}" not in os.environ}
            ),
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


def _unless_in(variable: str, value: str | None) -> str | None:
    """The value, or None where the environment has one that wandb reads by itself."""
    return None if variable in os.environ else value

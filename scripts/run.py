"""Decode a task and compare with one token per step: `python -m scripts.run sampler=localleap`.

Exit code 0: done; 1: a failure during the run, of a sample too; 2: something in the command to
mend; 130, 143 and 129: stopped by Ctrl-C, by SIGTERM and by a closed terminal (not under nohup),
once what was begun is finished.
In a sweep (`-m`) every job runs, one table closes it, and the code is the worst of the jobs'.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from dllm.errors import ConfigError, RunError
from dllm.runs.ranks import Ranks
from scripts.command_line import COMMAND, with_prompt


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def job(config: DictConfig) -> float | None:
    """One configuration; in a sweep its outcome goes to the sweep's list. Gives a sweeper the
    number that it asked for (`objective`), None for a job that failed."""
    COMMAND.started()
    from dllm.config import build, check_options
    from dllm.report.exhibits import exhibits
    from dllm.report.outputs import print_outputs
    from dllm.report.plan import plan
    from dllm.report.tables import failures, print_comparison
    from dllm.runs.execute import execute  # torch, not needed for --help
    from dllm.runs.parts import objective

    hydra_config = HydraConfig.get()
    sweep = Path(hydra_config.sweep.dir) if hydra_config.mode == RunMode.MULTIRUN else None
    name = hydra_config.runtime.choices.get("sampler", "")  # refused where it was taken away
    try:
        ranks = Ranks.of_environment()
        check_options(config)
        beside = _published(config.published)
        if config.dry:
            return print("\n".join(plan(config, name))) if ranks.first else None
        folder, summary = execute(config, name, *_sweep(sweep), exhibits=exhibits)
    except (ConfigError, RunError) as error:
        _failed(sweep, 2 if isinstance(error, ConfigError) else 1, str(error))
        return None
    if not ranks.first:
        return None
    for line in failures(summary):
        _failed(sweep, 1, line)
    if sweep is not None:
        _note(sweep, {"folder": str(folder), "summary": summary})
        told = objective(config, summary["metrics"])
        if told is None and "n_trials" in hydra_config.sweeper:
            _failed(sweep, 1, f"objective={config.objective} has no value: no answer is graded")
        return told
    with COMMAND.output():
        if hydra_config.runtime.choices["task"] == "prompts":
            print_outputs(folder, build(config.task, "task").samples("test", config.limit))
        print_comparison([summary], [folder])
        if beside:
            from dllm.report.counted import beside_published

            print("\n".join(beside_published(folder, config.published)))
    return None


def _published(wanted: str | None) -> bool:
    """Whether there is a published row to stand beside.

    Raises `ConfigError` for one that is not there, before anything is decoded.
    """
    from dllm.report.plan import published_row
    from dllm.report.published import FOLDER

    if wanted is None:
        return False
    if not FOLDER.is_dir():
        message = f"note: published={wanted}: the papers' figures are not installed here"
        print(message, file=sys.stderr)
        return False
    return bool(published_row(wanted))


def _sweep(folder: Path | None) -> tuple[str | None, list[str]]:
    """Name and swept options of the sweep that the job belongs to."""
    return (None, []) if folder is None else (folder.name, json.loads((folder / SWEPT).read_text()))


def _failed(sweep: Path | None, code: int, message: str) -> None:
    if sweep is None:
        COMMAND.failed(code, message)
    else:
        message = f"job {HydraConfig.get().job.num}: {message}"
        COMMAND.failed(code, message)
        _note(sweep, {"code": code, "error": message})


def _note(sweep: Path, line: dict[str, Any]) -> None:
    sweep.mkdir(parents=True, exist_ok=True)
    with open(sweep / JOBS, "a") as file:
        file.write(json.dumps({"job": HydraConfig.get().job.num, **line}) + "\n")


def _noted(sweep: Path) -> list[dict[str, Any]]:
    """Outcomes of the sweep's jobs in their order; a line that a kill cut off is none."""
    path = sweep / JOBS
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return sorted(map(json.loads, lines), key=lambda line: line["job"])


JOBS = "jobs.jsonl"
"""In a sweep's folder: the outcome of every job."""


SWEPT = "swept.json"
"""In a sweep's folder: the options that vary. A launcher's workers know their own values only."""


def _ranges(config: DictConfig) -> dict[str, str]:
    """Options with several values or a range on the command line -> as they were typed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    return {
        f"{o.key_or_group}{'@' + o.package if o.package else ''}": str(o.input_line)
        for o in given
        if o.is_sweep_override()
    }


def _of_study(config: DictConfig) -> bool:
    """Whether the sweeper keeps its trials in a database."""
    sweeper = config.hydra.sweeper
    return bool(sweeper.get("storage") and sweeper.get("study_name"))


_HELD = ExitStack()
"""The lock of the sweep's folder. Not in the callback: launchers send that to their workers."""


class SweepComparison(Callback):
    """Prints one table over all jobs when a sweep ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            self._begin(config)
        except (ConfigError, RunError) as error:
            # Of an exception Hydra makes a warning, and begins the jobs.
            code = 2 if isinstance(error, ConfigError) else 1
            COMMAND.started()
            COMMAND.failed(code, str(error))
            sys.exit(code)

    def _begin(self, config: DictConfig) -> None:
        """Takes the sweep's folder: what an earlier sweep left there is no row of this one, unless
        both are of one study."""
        from dllm.runs.lock import locked

        if Ranks.of_environment().several:
            raise ConfigError(
                "-m asks for many runs, several processes decode one run together: start the sweep "
                "with a launcher of Hydra's, hydra/launcher=..."
            )
        if not config.hydra.sweep.dir:
            raise ConfigError("hydra.sweep.dir= is empty")
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _HELD.enter_context(locked(folder / ".lock", 0, f"hydra.sweep.dir={folder}"))
        except OSError as error:
            raise ConfigError(f"hydra.sweep.dir={folder}: {error.strerror}") from None
        ranges, kept = _ranges(config), []
        if _of_study(config):
            from dllm.runs import study

            if study.go_on(config, list(ranges.values())):
                kept = [{**line, "job": -1} for line in _noted(folder) if "folder" in line]
        temporary = folder / f".{JOBS}.tmp"
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(folder / JOBS)
        searched = (str(name) for name in config.hydra.sweeper.get("params") or ())
        (folder / SWEPT).write_text(json.dumps([*ranges, *searched]))

        COMMAND.afterwards(lambda: _close(config))

    def on_job_end(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            COMMAND.between_jobs()


def _close(config: DictConfig) -> None:
    """Of a sweep: the failures of its jobs that were not told yet, and its table."""
    from dllm.report.tables import print_comparison

    _HELD.close()
    jobs = _noted(Path(config.hydra.sweep.dir))
    for line in (line for line in jobs if "error" in line):
        COMMAND.failed(line["code"], line["error"])
    done = {line["folder"]: line["summary"] for line in jobs if "folder" in line}
    with COMMAND.output():
        if done:
            print_comparison(list(done.values()), [Path(folder) for folder in done])
        if _of_study(config):
            from dllm.runs import study

            print(study.best(config))


def main() -> None:
    try:
        arguments = ["dry=true" if a == "--dry" else a for a in sys.argv[1:]]
        sys.argv[1:] = with_prompt(arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(COMMAND.run(job))


if __name__ == "__main__":
    main()

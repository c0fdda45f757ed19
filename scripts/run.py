"""Decode a task and compare with one token per step: `python -m scripts.run sampler=localleap`.

Exit code 0: done; 1: a failure during the run, of a sample too; 2: something in the command to
mend; 130 and 143: stopped by Ctrl-C and by SIGTERM, once what was begun is finished.
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
    """One configuration; in a sweep its outcome goes to the sweep's list. Gives the number that a
    sweeper asked for (`objective`), None for a job that failed."""
    COMMAND.started()
    from dllm.config import build, check_options
    from dllm.report.exhibits import exhibits
    from dllm.report.outputs import print_outputs
    from dllm.report.plan import plan
    from dllm.report.tables import failures, print_comparison
    from dllm.runs.execute import execute  # torch, not needed for --help

    hydra_config = HydraConfig.get()
    sweep = Path(hydra_config.sweep.dir) if hydra_config.mode == RunMode.MULTIRUN else None
    name = hydra_config.runtime.choices.get("sampler", "")  # refused where it was taken away
    ranks = Ranks.of_environment()
    try:
        check_options(config)
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
        return summary["metrics"][config.objective]
    with COMMAND.output():
        if hydra_config.runtime.choices["task"] == "prompts":
            print_outputs(folder, build(config.task, "task").samples("test", config.limit))
        print_comparison([summary], [folder])
        if config.published is not None:
            from dllm.report.counted import beside_published

            print("\n".join(beside_published(folder, config.published)))
    return summary["metrics"][config.objective]


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
    with open(sweep / "jobs.jsonl", "a") as file:
        file.write(json.dumps({"job": HydraConfig.get().job.num, **line}) + "\n")


SWEPT = "swept.json"
"""In a sweep's folder: the options that vary. A launcher's workers know their own values only."""


def _swept(config: DictConfig) -> list[str]:
    """Options with several values or a range, those of the sweeper's own search space included."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    ours = [
        f"{o.key_or_group}{'@' + o.package if o.package else ''}"
        for o in given
        if o.is_sweep_override()
    ]
    return [*ours, *(str(name) for name in config.hydra.sweeper.get("params") or ())]


_HELD = ExitStack()
"""The lock of the sweep's folder. Not in the callback: launchers send that to their workers."""


class SweepComparison(Callback):
    """Prints one table over all jobs when a sweep ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Takes the sweep's folder: what an earlier sweep left there is no row of this one."""
        from dllm.runs.lock import locked

        if Ranks.of_environment().several:
            raise ConfigError(
                "-m asks for many runs, several processes decode one run together: start the sweep "
                "with a launcher of Hydra's, hydra/launcher=..."
            )
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _HELD.enter_context(locked(folder / ".lock", 0, f"hydra.sweep.dir={folder}"))
        except OSError as error:
            raise ConfigError(f"hydra.sweep.dir={folder}: {error.strerror}") from None
        (folder / "jobs.jsonl").unlink(missing_ok=True)
        (folder / SWEPT).write_text(json.dumps(_swept(config)))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from dllm.report.tables import print_comparison

        _HELD.close()
        path = Path(config.hydra.sweep.dir) / "jobs.jsonl"
        if not path.exists():
            return
        jobs = sorted(map(json.loads, path.read_text().splitlines()), key=lambda line: line["job"])
        for failed in (line for line in jobs if "error" in line):
            COMMAND.failed(failed["code"], failed["error"])
        done = [line for line in jobs if "folder" in line]
        if done:
            folders = [Path(line["folder"]) for line in done]
            with COMMAND.output():
                print_comparison([line["summary"] for line in done], folders)


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

"""Decode a task and compare with one token per step: `python -m scripts.run sampler=localleap`.

Exit code 0: done; 1: a failure during the run; 2: something in the command to mend. In a sweep
(`-m`) every job runs, one table closes it, and the code is the worst of the jobs'.
"""

import json
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from dllm.errors import ConfigError, RunError
from scripts.command_line import COMMAND


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def job(config: DictConfig) -> None:
    """One configuration; in a sweep its outcome goes to the sweep's list."""
    COMMAND.started()
    from dllm.report.tables import print_comparison
    from dllm.runs.execute import execute  # torch, not needed for --help

    hydra_config = HydraConfig.get()
    sweep = Path(hydra_config.sweep.dir) if hydra_config.mode == RunMode.MULTIRUN else None
    name = hydra_config.runtime.choices["sampler"]
    try:
        folder, summary = execute(config, name, sweep.name if sweep else None)
    except (ConfigError, RunError) as error:
        code = 2 if isinstance(error, ConfigError) else 1
        if sweep is None:
            COMMAND.failed(code, str(error))
        else:
            message = f"job {hydra_config.job.num}: {error}"
            COMMAND.failed(code, message)
            _note(sweep, {"job": hydra_config.job.num, "code": code, "error": message})
        return
    if sweep is not None:
        _note(sweep, {"job": hydra_config.job.num, "folder": str(folder)})
    else:
        print_comparison([summary], [folder])


def _note(sweep: Path, line: dict[str, Any]) -> None:
    sweep.mkdir(parents=True, exist_ok=True)
    with open(sweep / "jobs.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


class SweepComparison(Callback):
    """Prints one table over all jobs when a sweep ends."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from dllm.report.tables import print_comparison
        from dllm.runs.folder import RunFolder

        path = Path(config.hydra.sweep.dir) / "jobs.jsonl"
        if not path.exists():
            return
        jobs = sorted(map(json.loads, path.read_text().splitlines()), key=lambda line: line["job"])
        for failed in (line for line in jobs if "error" in line):
            COMMAND.failed(failed["code"], failed["error"])
        folders = [Path(line["folder"]) for line in jobs if "folder" in line]
        if folders:
            print_comparison([RunFolder(folder).summary() for folder in folders], folders)


def main() -> None:
    sys.exit(COMMAND.run(job))


if __name__ == "__main__":
    main()

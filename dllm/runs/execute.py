"""One command: the run that it describes, and beside it its baseline and its control."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dllm import config as configuration
from dllm.errors import ConfigError
from dllm.runs.beside import baseline_name, baseline_of, control_of, shared
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.executor import Executor
from dllm.runs.folder import point_latest
from dllm.runs.parts import build_parts
from dllm.runs.ranks import Ranks
from dllm.runs.run import Run
from dllm.runs.tracked import Exhibits


def execute(
    config: DictConfig,
    sampler_name: str,
    group: str | None = None,
    swept: Sequence[str] = (),
    exhibits: Exhibits | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Runs (or completes) one configuration and, if asked for, its baseline; what is new is tracked
    with its `exhibits`.

    swept: options of the sweep that it belongs to, by their names on the command line

    Returns the run folder and the contents of its summary.json. Raises `ConfigError` before any
    work and `RunError` during it; `Stopped` where a signal asked for an end.
    """
    configuration.check_complete(config)
    parts, ranks = build_parts(config), Ranks.of_environment()
    if ranks.first:
        parts.tracker.check()
    checkpoint = Checkpoint(parts.model)
    run = Run(config, sampler_name, parts, checkpoint, swept)
    beside_it = [option for option in swept if shared(option)]
    with _executor(config, ranks) as executor:
        ranks.join(config.model.device)
        if executor.here:
            for model in (checkpoint, *run.others.values()):
                model.check_here()
        baseline = control = None
        if config.baseline:
            base = baseline_of(config, checkpoint.spec)
            if configuration.fingerprint(base) == configuration.fingerprint(config):
                baseline = run
            else:
                run.check()
                baseline = Run(
                    base,
                    baseline_name(checkpoint.spec),
                    build_parts(base),
                    checkpoint,
                    beside_it,
                    "baseline",
                ).complete(executor, ranks, group, exhibits)
        beside = control_of(config, sampler_name, parts.sampler)
        if beside is not None:
            run.check()
            control = Run(
                *beside, build_parts(beside[0]), checkpoint, beside_it, "control"
            ).complete(executor, ranks, group, exhibits, baseline)
        finished = run.complete(executor, ranks, group, exhibits, baseline, control)
        if ranks.first:
            point_latest(Path(config.output), finished.path)
    return finished.path, finished.summary


@contextmanager
def _executor(config: DictConfig, ranks: Ranks) -> Iterator[Executor]:
    executor = configuration.build(config.executor, "executor", config.allow_external, Executor)
    if ranks.several and not executor.here:
        raise ConfigError(
            f"executor={type(executor).__name__} starts processes of its own; WORLD_SIZE="
            f"{ranks.size} says that a launcher has done so: use executor=local"
        )
    executor.check()
    try:
        yield executor
    finally:
        executor.finish()

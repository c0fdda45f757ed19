"""One run: decode what is missing of a task, grade it, keep it, compare it with the baseline."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dllm import config as configuration
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.metrics.definitions import Comparison, SampleResult, Summary
from dllm.runs.beside import BASELINE, baseline_of, control_of, shared
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.decoding import Decoding, decoder, fitting
from dllm.runs.environment import describe
from dllm.runs.folder import RunFolder, point_latest
from dllm.runs.identity import Identity
from dllm.runs.labels import label, task_name
from dllm.runs.others import others
from dllm.runs.parts import Parts, build_parts
from dllm.runs.tracked import Exhibits, Tracked
from dllm.tasks.base import Sample, Task
from dllm.tracking.none import NoTracker
from dllm.tracking.tracker import RunInfo


_MADE_HERE: set[Path] = set()
"""Folders that this process has completed: their reuse is no news."""


@dataclass(frozen=True)
class Finished:
    """A completed run."""

    path: Path
    results: Sequence[SampleResult]
    summary: dict[str, Any]


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
    work and `RunError` during it.
    """
    configuration.check_complete(config)
    parts = build_parts(config)
    parts.tracker.check()
    checkpoint = Checkpoint(parts.model)
    run = _Run(config, sampler_name, parts, checkpoint, swept)
    beside_it = [option for option in swept if shared(option)]
    baseline = control = None
    if config.baseline:
        base = baseline_of(config, checkpoint.spec)
        if configuration.fingerprint(base) == configuration.fingerprint(config):
            baseline = run
        else:
            run.check()
            baseline = _Run(
                base, BASELINE, build_parts(base), checkpoint, beside_it, "baseline"
            ).complete(group, exhibits)
    beside = control_of(config, sampler_name, parts.sampler)
    if beside is not None:
        run.check()
        control = _Run(*beside, build_parts(beside[0]), checkpoint, beside_it, "control").complete(
            group, exhibits, baseline
        )
    finished = run.complete(group, exhibits, baseline, control)
    point_latest(Path(config.output), finished.path)
    return finished.path, finished.summary


class _Run:
    """One configuration, checked: what refuses it does so on construction."""

    def __init__(
        self,
        config: DictConfig,
        name: str,
        parts: Parts,
        checkpoint: Checkpoint,
        swept: Sequence[str],
        job: str = "decode",
    ):
        sampler = fitting(config, parts, checkpoint)
        self.config, self.checkpoint, self.job = config, checkpoint, job
        self.others = others(config, sampler, checkpoint)
        self.parts = replace(parts, sampler=sampler)
        self.samples = _samples(parts.task, config)
        self.name, self.label = name, label(config, name, swept)
        self.task = task_name(config, swept)
        contents = dict(checkpoint.contents)
        for named, other in self.others.items():
            contents |= {f"{named}: {file}": mark for file, mark in other.contents.items()}
        self.identity = Identity.of(config, sampler, contents, self.samples)
        self.folder = RunFolder(Path(config.output) / name / self.identity.mark)

    @cached_property
    def _decoder(self) -> Decoder:
        """Loads the model, and keeps what the constraint has compiled."""
        return decoder(self.config, self.parts, self.checkpoint, self.others)

    def check(self) -> None:
        """Raises `ConfigError` for samples that can't be decoded, so that nobody waits for what is
        decoded beside the run to be told."""
        done = set() if self.config.overwrite else self.folder.finished()
        missing = [sample for sample in self.samples if sample.id not in done]
        if missing:
            # Any answer stands in for the references, which the baseline is yet to give.
            some = (self.checkpoint.spec.pad_id,)
            self._decoding(missing, {sample.id: some for sample in missing})

    def _decoding(
        self, missing: Sequence[Sample], references: Mapping[str, Sequence[int]]
    ) -> Decoding:
        task = self.parts.task
        return Decoding(
            self.config, task, self.checkpoint, self.others, self._decoder, missing, references
        )

    def complete(
        self,
        group: str | None,
        exhibits: Exhibits | None,
        baseline: "Finished | _Run | None" = None,
        control: Finished | None = None,
    ) -> Finished:
        """Decodes what is missing. `baseline` may be this run itself."""
        config, folder = self.config, self.folder
        with folder.locked(config.wait_minutes):
            if config.overwrite:
                folder.clear()
            order = {sample.id: index for index, sample in enumerate(self.samples)}
            notes = folder.damaged(asdict(self.identity))
            vocabulary, alternatives = self.checkpoint.spec.vocab_size, config.alternatives or 0
            notes += folder.repair(order, vocabulary, config.trace, alternatives)
            done = folder.finished()
            missing = [sample for sample in self.samples if sample.id not in done]
            decoding = None
            if missing:
                decoding = self._decoding(missing, self._references(baseline))
                changed = folder.write_environment(describe(config.model.device))
                if done and changed:
                    notes.append(f"{folder.path} goes on with changed {', '.join(changed)}")
            self._keep_identity()
            if done and folder.path not in _MADE_HERE:
                notes.append(
                    f"{len(done)} of {len(order)} samples reused from {folder.path} "
                    "(overwrite=true decodes them again)"
                )
            for note in notes:
                print(f"note: {note}", file=sys.stderr, flush=True)
            tracker = self.parts.tracker
            if decoding is None and folder.tracked() == tracker.destination:
                tracker = NoTracker()  # it is there already
            tracked = Tracked(tracker)
            try:
                tracker.start(self._info(group))
                for result in folder.samples():
                    tracked.add(result)
                if decoding is not None:
                    decoding.run(folder, self.name, tracked.add)
                results = sorted(folder.samples(), key=lambda result: order[result.id])
                summary = self._summary(results, baseline, control)
                folder.write_summary(summary)
                tracked.close(folder, results, summary, exhibits)
            finally:
                tracker.finish()
            if tracker.destination is not None:
                folder.write_tracked(tracker.destination)
        _MADE_HERE.add(folder.path)
        return Finished(folder.path, results, folder.summary())

    def _keep_identity(self) -> None:
        """Says what is inside the folder, and moves away what other code made of these options."""
        identity = asdict(self.identity)
        self.folder.write_config(OmegaConf.to_yaml(self.config, resolve=True))
        self.folder.write_identity(identity)
        for other in self.folder.supersede(identity):
            changed = self.identity.changed_from(RunFolder(other).identity())
            names = ", ".join(changed[:4]) + (", ..." if len(changed) > 4 else "")
            note = f"note: {names} changed: decoded anew, the old results are in {other}"
            print(note, file=sys.stderr, flush=True)

    def _references(self, baseline: "Finished | _Run | None") -> dict[str, list[int]]:
        """The model's own answers by sample, for samplers that need a reference."""
        if "reference" not in self.parts.sampler.needs:
            return {}
        if not isinstance(baseline, Finished):
            raise ConfigError(
                "baseline=false: the sampler needs the baseline's answers as references; "
                "use baseline=true"
            )
        return {result.id: result.tokens for result in baseline.results}

    def _info(self, group: str | None) -> RunInfo:
        return RunInfo(
            self.folder.path,
            self.identity.mark,
            self.label,
            OmegaConf.to_container(self.config, resolve=True),  # type: ignore[arg-type]
            group,
            (self.name, str(self.config.model.name)),
            self.job,
        )

    def _summary(
        self,
        results: Sequence[SampleResult],
        baseline: "Finished | _Run | None",
        control: Finished | None,
    ) -> dict[str, Any]:
        summary: dict[str, Any] = {
            "label": self.label,
            "fingerprint": self.identity.mark,
            "model": self.config.model.name,
            "task": self.task,
            "metrics": asdict(Summary.of(results)),
        }
        if failed := [result.failure for result in results if result.failure is not None]:
            summary["failure"] = failed[0]
        if baseline is self:
            summary["versus_baseline"] = asdict(Comparison.of(results, results))
        elif isinstance(baseline, Finished):
            summary["versus_baseline"] = asdict(Comparison.of(results, baseline.results))
            summary["baseline"] = baseline.summary
        if control is not None:
            summary["control"] = control.summary
        return summary


def _samples(task: Task, config: DictConfig) -> list[Sample]:
    try:
        return task.samples("test", config.limit, config.seed)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"limit={config.limit}: {error}") from None

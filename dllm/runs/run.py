"""One run: decode what is missing of a task, grade it, keep it, compare it with the baseline."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dllm.engine.loop import Decoder
from dllm.errors import ConfigError, RunError
from dllm.metrics.definitions import Comparison, SampleResult, Summary
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.decoding import Decoding, fitting, loaded, outline
from dllm.runs.environment import describe
from dllm.runs.executor import Executor, Work
from dllm.runs.folder import RunFolder
from dllm.runs.identity import Identity
from dllm.runs.labels import label, task_name
from dllm.runs.others import others
from dllm.runs.parts import Parts
from dllm.runs.plausible import check
from dllm.runs.progress import Progress
from dllm.runs.ranks import Ranks
from dllm.runs.stopping import asked, finishing, stop_if_asked
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


class Run:
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
        self._order = {sample.id: index for index, sample in enumerate(self.samples)}

    @cached_property
    def _outline(self) -> Decoder:
        """Keeps what the constraint has compiled."""
        return outline(self.config, self.parts, self.checkpoint, self.others)

    def check(self) -> None:
        """Raises `ConfigError` for samples that can't be decoded, so that nobody waits for what is
        decoded beside the run to be told."""
        done = set() if self.config.overwrite else self.folder.finished()
        missing = [sample for sample in self.samples if sample.id not in done]
        if missing:
            # Any answer stands in for the references, which the baseline is yet to give.
            some = (self.checkpoint.spec.pad_id,)
            self.decoding(missing, {sample.id: some for sample in missing}, False)

    def decoding(
        self,
        missing: Sequence[Sample],
        references: Mapping[str, Sequence[int]],
        here: bool = True,
    ) -> Decoding:
        """Only where it is to decode `here` the model is loaded, once nothing refuses a sample."""
        task, checkpoint, others = self.parts.task, self.checkpoint, self.others
        decoding = Decoding(
            self.config, task, checkpoint, others, self._outline, missing, references
        )
        if here:
            decoding.decoder = loaded(self._outline, checkpoint, others)
        return decoding

    def complete(
        self,
        executor: Executor,
        ranks: Ranks,
        group: str | None,
        exhibits: Exhibits | None,
        baseline: "Finished | Run | None" = None,
        control: Finished | None = None,
    ) -> Finished:
        """Decodes what is missing. `baseline` may be this run itself."""
        if not ranks.first:
            return self._help(executor, ranks, baseline)
        config, folder = self.config, self.folder
        with folder.locked(config.wait_minutes):
            if config.overwrite:
                folder.clear()
            notes = folder.damaged(asdict(self.identity))
            folder.gather()
            notes += folder.repair(self._plausible(), config.trace, config.alternatives or 0)
            missing, references = self._missing(), self._references(baseline)
            reused = len(self.samples) - len(missing)
            decoding = None
            if missing:
                decoding = self.decoding(missing, references, executor.here)
                changed = folder.write_environment(describe(config.model.device))
                if reused and changed:
                    notes.append(f"{folder.path} goes on with changed {', '.join(changed)}")
            self._keep_identity()
            if reused and folder.path not in _MADE_HERE:
                notes.append(
                    f"{reused} of {len(self.samples)} samples reused from {folder.path} "
                    "(overwrite=true decodes them again)"
                )
            for note in notes:
                print(f"note: {note}", file=sys.stderr, flush=True)
            tracker = self.parts.tracker
            if decoding is None and folder.tracked() == tracker.destination:
                tracker = NoTracker()  # it is there already
            tracked = Tracked(tracker)
            ranks.wait()
            try:
                tracker.start(self._info(group))
                for result in folder.samples():
                    tracked.add(result)
                if decoding is not None:
                    self._decode(executor, ranks, decoding, references, tracked.add)
                results = self._results()
                summary = self._summary(results, baseline, control)
                folder.write_summary(summary)
                stop_if_asked(self._done())
                tracked.close(folder, results, summary, exhibits)
            finally:
                tracker.finish()
            if tracker.destination is not None:
                folder.write_tracked(tracker.destination)
        ranks.wait()
        _MADE_HERE.add(folder.path)
        return Finished(folder.path, results, folder.summary())

    def _plausible(self) -> Callable[[SampleResult], str | None]:
        """What is wrong with a sample that an earlier process has left."""
        samples = {sample.id: sample for sample in self.samples}
        checkpoint, length = self.checkpoint, self.config.gen_length
        return check(samples, self.parts, checkpoint.spec, checkpoint.tokenizer, length)

    def _help(
        self, executor: Executor, ranks: Ranks, baseline: "Finished | Run | None"
    ) -> Finished:
        """The part of the processes that are not the first one."""
        ranks.wait()
        missing, references = self._missing(), self._references(baseline)
        if missing:
            decoding = self.decoding(missing, references)
            self._decode(executor, ranks, decoding, references, lambda result: None)
            stop_if_asked("")
        ranks.wait()
        return Finished(self.folder.path, self._results(), self.folder.summary())

    def _decode(
        self,
        executor: Executor,
        ranks: Ranks,
        decoding: Decoding,
        references: Mapping[str, Sequence[int]],
        tell: Callable[[SampleResult], None],
    ) -> None:
        """Each sample is on disk before it is told, and before the next one is decoded; of several
        processes each decodes its share, and the first one gathers them.

        Raises `RunError` where some are missing in the end, `Stopped` where none is there.
        """
        work = Work(
            OmegaConf.to_yaml(self.config, resolve=True), self.name, self.identity.mark, references
        )
        mine = ranks.share(list(decoding.samples))
        folder = self.folder.share(ranks.rank) if ranks.several else self.folder
        shown = self.config.progress and ranks.first
        began, spent, tokens = time.perf_counter(), 0.0, 0
        with finishing(), Progress(self.name, len(mine)) if shown else nullcontext() as bar:
            for result, trace in executor.results(work, decoding, mine):
                folder.append(result, trace)
                if not ranks.several:
                    tell(result)
                if bar is not None:
                    bar.add(result)
            ranks.wait()
        if not ranks.first:
            return
        if ranks.several:
            seconds = time.perf_counter() - began
            for result in self.folder.gather():
                tell(result)
                spent += result.seconds
                tokens += result.effective
            print(
                f"note: {self.name}: {tokens / seconds:.1f} tokens/s by {ranks.size} processes, "
                f"{tokens / spent:.1f} by each",
                file=sys.stderr,
                flush=True,
            )
        if self._missing():
            if not self._results():
                stop_if_asked("no sample is done yet")
            if not asked():
                raise RunError(f"{self._done()}: the same command goes on")

    def _missing(self) -> list[Sample]:
        done = self.folder.finished()
        return [sample for sample in self.samples if sample.id not in done]

    def _results(self) -> list[SampleResult]:
        return sorted(self.folder.samples(), key=lambda result: self._order[result.id])

    def _done(self) -> str:
        done = len(self.samples) - len(self._missing())
        return f"{done} of {len(self.samples)} samples are kept in {self.folder.path}"

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

    def _references(self, baseline: "Finished | Run | None") -> dict[str, list[int]]:
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
        baseline: "Finished | Run | None",
        control: Finished | None,
    ) -> dict[str, Any]:
        """Of a run that was stopped, what there is, and how many samples are missing."""
        summary: dict[str, Any] = {
            "label": self.label,
            "fingerprint": self.identity.mark,
            "model": self.config.model.name,
            "task": self.task,
            "metrics": asdict(Summary.of(results)),
        }
        if missing := len(self.samples) - len(results):
            summary["missing"] = missing
        if failed := [result.failure for result in results if result.failure is not None]:
            summary["failure"] = failed[0]
        if baseline is self:
            summary["versus_baseline"] = asdict(Comparison.of(results, results))
        elif isinstance(baseline, Finished):
            done = {result.id for result in results}
            same = [result for result in baseline.results if result.id in done]
            summary["versus_baseline"] = asdict(Comparison.of(results, same))
            summary["baseline"] = baseline.summary
        if control is not None:
            summary["control"] = control.summary
        return summary


def check_decodable(
    config: DictConfig, parts: Parts, checkpoint: Checkpoint, samples: Sequence[Sample]
) -> None:
    """Raises `ConfigError` for what a run of this configuration would be refused for; no weights
    are read."""
    sampler = fitting(config, parts, checkpoint)
    beside, parts = others(config, sampler, checkpoint), replace(parts, sampler=sampler)
    references = {sample.id: (checkpoint.spec.pad_id,) for sample in samples}
    decoder = outline(config, parts, checkpoint, beside)
    Decoding(config, parts.task, checkpoint, beside, decoder, samples, references)


def _samples(task: Task, config: DictConfig) -> list[Sample]:
    try:
        return task.samples("test", config.limit, config.seed)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"limit={config.limit}: {error}") from None

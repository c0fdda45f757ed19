"""The samples of finished runs, found and made films of."""

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from dllm.config import build
from dllm.errors import ConfigError
from dllm.metrics.definitions import SampleResult
from dllm.models.hub import ModelOptions
from dllm.report.replay.command import command_of
from dllm.report.replay.film import Film, Words, frames_of, start_of
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.folder import RunFolder
from dllm.runs.labels import label, task_name
from dllm.step.trace import Trace


class Recorded:
    """A run folder whose decoding is looked at. Raises `ConfigError` for what is none."""

    def __init__(self, path: Path):
        self.path = path.resolve()
        if not (self.path / "config.yaml").is_file():
            raise ConfigError(f"{path} is no run folder: it holds no config.yaml")
        self.folder = RunFolder(self.path)
        self.config = self.folder.config()
        self.sampler = self.path.parent.name
        self.results = {result.id: result for result in self.folder.samples()}
        if not self.results:
            raise ConfigError(f"{path} holds no finished sample")

    @cached_property
    def checkpoint(self) -> Checkpoint:
        options = build(self.config.model, "model", kind=ModelOptions)
        return Checkpoint(options)

    @property
    def title(self) -> str:
        return label(self.config, self.sampler)

    def result(self, sample: str | None) -> SampleResult:
        """The sample of this id; None = the first one."""
        if sample is None:
            return next(iter(self.results.values()))
        if sample not in self.results:
            close = difflib.get_close_matches(sample, self.results, n=1)
            known = ", ".join([*close, *(name for name in self.results if name not in close)][:4])
            more = ", ..." if len(self.results) > 4 else ""
            raise ConfigError(f"--sample {sample} is no sample of {self.path}: {known}{more}")
        return self.results[sample]

    def trace(self, sample: str) -> Trace:
        if (self.path / "traces.jsonl.gz").exists() and not self.results[sample].unfit:
            return self.folder.traces_of([sample])[0]
        if self.results[sample].unfit:
            raise ConfigError(f"sample {sample} did not fit the model: nothing was decoded")
        command = command_of(self.config, self.sampler) or f"the run of {self.path / 'config.yaml'}"
        raise ConfigError(
            f"{self.path} holds no trace of sample {sample}: {command} with trace=true and "
            "alternatives=5 makes one"
        )

    def film(self, sample: str | None) -> Film:
        """Raises `ConfigError` for an unknown sample and for one without a trace."""
        result = self.result(sample)
        return self.film_of(result, self.trace(result.id), self.title)

    def film_of(
        self,
        result: SampleResult,
        trace: Trace,
        title: str,
        fork: int | None = None,
    ) -> Film:
        words = Words(self.checkpoint.tokenizer)
        frames = frames_of(trace, words)
        return Film(
            title=title,
            model=str(self.config.model.name),
            task=task_name(self.config),
            sample=result.id,
            prompt=result.prompt,
            answer=result.output,
            correct=result.correct,
            length=trace.gen_length,
            words=words.texts,
            ends=words.numbers(self.checkpoint.spec.eos_ids),
            frames=frames,
            given=start_of(trace, words),
            alternatives=trace.alternatives,
            fork=fork,
        )


def beside(paths: Sequence[Path], sample: str | None) -> list[Film]:
    """The same sample of one or two runs. Raises `ConfigError` for runs of other prompts."""
    films = []
    for path in paths:
        film = Recorded(path).film(sample)
        sample = film.sample
        films.append(film)
    prompts = {film.prompt for film in films}
    if len(prompts) > 1:
        raise ConfigError(f"sample {sample} has another prompt in {paths[1]} than in {paths[0]}")
    return films

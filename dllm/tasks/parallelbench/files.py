"""ParallelBench from its own files: prompts as version 1 assembles them.

Paper: arXiv 2510.04767, code furiosa-ai/ParallelBench (release of October 2025). Its files have no
licence and are not part of this toolkit; `task.path` names a copy. Known faults of the data:

- `sort` asks for the order of last names while its labels are sorted by the whole name: leave it
  out of averages;
- positions of the `*_index` kinds count from 0, which no prompt says.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from dllm.errors import ConfigError
from dllm.tasks.base import Grade, Sample, Split, Task, chosen
from dllm.tasks.parallelbench.metrics import METRICS
from dllm.tasks.parallelbench.texts import TEXT_SCORES, Texts
from dllm.tasks.public import identified
from dllm.tasks.rows import read_lines


CONFIG = "task_config.yaml"
"""Beside the files of each family: prompt and metric of its tasks."""


@dataclass(frozen=True)
class BenchmarkFile:
    """One kind of the benchmark."""

    path: Path
    prompt: str
    """The template that a row's input fills."""
    metric: str


class ParallelBench(Task):
    """One file, one family's folder, or all families below a folder; a kind is `family/task`.

    grammar: whether texts are checked by LanguageTool, which needs Java; without it the texts that
        only grammar judges are refused and words_to_sentence is graded by the words it includes
    infill: whether only the gaps of the file's `output_format` are decoded, one token for an item
    bertscore: whether paraphrases are also compared with their source by a model from the hub
    """

    def __init__(
        self,
        path: str | None,
        kinds: Sequence[str] | None,
        grammar: bool,
        bertscore: bool,
        infill: bool,
    ) -> None:
        self._path, self._chosen, self._wanted = path, kinds, (grammar, bertscore)
        self._infill = infill

    @cached_property
    def _files(self) -> Mapping[str, BenchmarkFile]:
        """The chosen kinds, each with its file."""
        if self._path is None:
            raise ConfigError(
                "task.path=null: ParallelBench is on no hub; name a .jsonl file of its version 1, "
                f"beside its {CONFIG}, or a folder of them"
            )
        found = _found(Path(self._path).expanduser())
        return {kind: found[kind] for kind in chosen(self._chosen, tuple(found))}

    @cached_property
    def _texts(self) -> Texts:
        return Texts({file.metric for file in self._files.values()}, *self._wanted)

    @property
    def kinds(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(self._files)

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """The kinds in turn, each in the order of its file; `limit` in total (None: all)."""
        _ = self._texts  # what it lacks is said before any work
        lists = [_samples(kind, file, self._infill) for kind, file in self._files.items()]
        longest = max(map(len, lists))
        in_turn = [found[i] for i in range(longest) for found in lists if i < len(found)]
        return in_turn[:limit]

    def assess(self, sample: Sample, text: str) -> Grade:
        metric, label = self._files[sample.task].metric, sample.meta["row"]["answer"]
        if metric in TEXT_SCORES:
            return self._texts.assess(metric, text, label)
        score = METRICS[metric](text, label)
        return score.grade(text)


def _samples(kind: str, file: BenchmarkFile, infill: bool) -> list[Sample]:
    samples = []
    for number, row in enumerate(read_lines(file.path, "task.path")):
        where = f"task.path={file.path}: row {number} lacks"
        if not row.keys() >= {"input", "answer"} or not isinstance(row["input"], dict):
            raise ConfigError(f"{where} input or answer")
        try:
            prompt = _filled(file.prompt, row["input"])
            examples = row["input"].get("icl_examples", [])
            turns = tuple((_filled(file.prompt, e["input"]), _text(e["answer"])) for e in examples)
        except KeyError as error:
            raise ConfigError(f"{where} {error}") from None
        sample = identified(kind, number, row, prompt, _text(row["answer"]), turns)
        if infill:
            if not row.get("output_format"):
                raise ConfigError(f"{where} output_format, whose gaps task.infill=true fills")
            sample = replace(sample, form=row["output_format"])
        samples.append(sample)
    return samples


def _filled(template: str, values: Mapping[str, Any]) -> str:
    # the sudoku template holds the two characters of an escaped line break
    return template.format(**values).replace("\\n", "\n")


def _text(answer: str | Mapping[str, Any]) -> str:
    """A correct response; empty where the file has no example of one."""
    if isinstance(answer, str):
        return answer
    if "examples" in answer:
        return ast.literal_eval(answer["examples"])[0]
    return answer.get("example") or answer.get("summary") or ""


def _found(path: Path) -> dict[str, BenchmarkFile]:
    """The files at a path, by kind."""
    if not path.exists():
        raise ConfigError(
            f"task.path={path} does not exist; expected a .jsonl file of ParallelBench or a folder"
        )
    files = [path] if path.is_file() else sorted(path.rglob("*.jsonl"))
    if not files:
        raise ConfigError(f"task.path={path} holds no .jsonl file of ParallelBench")
    found = {}
    for file in files:
        settings = file.absolute().parent / CONFIG
        if not settings.is_file():
            raise ConfigError(
                f"task.path={file}: no {CONFIG} beside it, with its prompt and metric"
            )
        kind = f"{settings.parent.name}/{file.stem}"
        entry = yaml.safe_load(settings.read_text()).get(kind)
        if not isinstance(entry, dict) or not entry.keys() >= {"prompt", "metric"}:
            raise ConfigError(f"task.path={file}: {CONFIG} has no prompt and metric of {kind}")
        if entry["metric"] not in METRICS.keys() | TEXT_SCORES.keys():
            raise ConfigError(
                f"task.path={file}: {CONFIG} names the unknown metric {entry['metric']}"
            )
        found[kind] = BenchmarkFile(file, entry["prompt"], entry["metric"])
    return found

"""The bits of a finished run, round by round, from its traces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Self

import numpy as np
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dllm.config import build, choices
from dllm.errors import ConfigError
from dllm.metrics.bits import Bound, Budget, Round, bits
from dllm.runs.folder import RunFolder
from dllm.runs.labels import label, option_of, task_name
from dllm.step.plan import ForwardKind
from dllm.step.sampler import Sampler
from dllm.step.trace import Step, Trace


@dataclass(frozen=True)
class SequenceBits:
    """One sequence along the path that was taken."""

    rounds: list[Round]
    effective_bits: float
    """Of the tokens before the first end token, where they were when they were committed."""
    unknown: int
    """Committed tokens that no forward has predicted (a constraint's): they carry no bits here."""
    bound: Bound | None
    """None = the rule bounds nothing."""
    sequential_bits: float | None
    """Of the same tokens where the path reveals them one at a time; None = not known."""

    @classmethod
    def of(cls, trace: Trace, effective: int, budget: Budget | None) -> Self:
        """Raises `ConfigError` for a trace without probabilities."""
        rounds, unknown, inside = [], 0, 0.0
        for step, most in _decisions(trace):
            if len(step.probabilities) < len(step.positions):
                raise ConfigError("its traces hold no probabilities")
            known = [p for p in step.probabilities if p is not None]
            unknown += len(step.probabilities) - len(known)
            inside += sum(
                bits(p)
                for position, p in zip(step.positions, step.probabilities, strict=True)
                if p is not None and position < effective
            )
            rounds.append(Round(step.block, most, known))
        bound = None if budget is None else Bound.of(rounds, budget)
        alone = None
        if trace.sequential is not None and not unknown:
            alone = sum(map(bits, trace.sequential))
        return cls(rounds, inside, unknown, bound, alone)

    @cached_property
    def path_bits(self) -> float:
        return sum(one.bits for one in self.rounds)


def _decisions(trace: Trace) -> Iterator[tuple[Step, int]]:
    """Every round with the number of positions that were open to it when its block began: those of
    the block, or all where the rule commits beyond the block."""
    canvas = np.full(trace.gen_length, trace.mask_id)
    # Where another model decides, a round is its forward: drafts are none.
    others = any(step.model is not None for step in trace.steps)
    pairs = zip(trace.steps, trace.replay(), strict=True)
    for _, of_block in groupby(pairs, key=lambda pair: pair[0].block):
        steps, canvases = zip(*of_block, strict=True)
        start, end = next((step.opened for step in steps if step.opened), (0, canvas.size))
        committed = [position for step in steps for position in step.positions]
        within = all(start <= position < end for position in committed)
        still_open = canvas == trace.mask_id
        most = int((still_open[max(start, 0) : end] if within else still_open).sum())
        # A canvas that grows has more.
        most = max(most, *(len(step.positions) for step in steps), 0)
        for step in steps:
            idle = step.kind in (ForwardKind.PREFILL, ForwardKind.COMMIT)
            if step.positions or not (idle or (others and step.model is None)):
                yield step, most
        canvas = canvases[-1]


@dataclass(frozen=True)
class RunBits:
    """All sequences of a run. Totals, not means of ratios."""

    label: str
    task: str
    mark: str
    """Name of the folder."""
    sequences: list[SequenceBits]
    samples: int
    """Finished ones."""
    wanted: int | None
    """Samples of the whole run; None = not known."""
    unscored: int
    """Sequences that were to be predicted token by token and could not be."""

    @classmethod
    def of(cls, folder: RunFolder) -> Self:
        """Raises `ConfigError` for what is no run and for a run without what is needed."""
        path = folder.path
        if not (path / "config.yaml").exists():
            raise ConfigError(f"{path} is no run folder: it has no config.yaml")
        try:
            config = folder.config()
            sampler = build(config.sampler, "sampler", bool(config.get("allow_external")), Sampler)
            budget, task = sampler.budget(), task_name(config)
        except (TypeError, AttributeError, ValueError, OmegaConfBaseException) as error:
            told = str(error).splitlines()[0]
            place = path / "config.yaml"
            raise ConfigError(told if str(place) in told else f"{place}: {told}") from None
        samples = folder.samples()
        effective = {s.id: s.effective for s in samples if not s.unfit}
        if not effective:
            raise ConfigError(f"{path} has no finished samples")
        if not (path / "traces.jsonl.gz").exists():
            raise ConfigError(f"{path} has no traces: decode with trace=true")
        traces = folder.traces_of(effective.keys())
        name, wanted = _label(folder, config), config.get("limit")
        if (path / "summary.json").exists():
            summary = folder.summary()
            name, metrics = summary.get("label"), summary.get("metrics")
            if not isinstance(name, str) or not isinstance(metrics, dict) or "n" not in metrics:
                lacking = "metrics" if isinstance(name, str) else "label"
                raise ConfigError(
                    f"{path / 'summary.json'} is no run's summary: it has no {lacking}"
                )
            wanted = metrics["n"] + summary.get("missing", 0)
        try:
            found = [SequenceBits.of(trace, effective[trace.sample_id], budget) for trace in traces]
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}, decode again: trace=true overwrite=true") from None
        if not any(one.rounds for one in found):
            raise ConfigError(f"{path}: its traces hold no round in which anything was decided")
        unscored = 0
        if config.get("score_sequential"):
            unscored = sum(trace.sequential is None for trace in traces)
        mark = path.resolve().name
        return cls(name, task, mark, found, len(samples), wanted, unscored)

    @property
    def rounds(self) -> float:
        """Per sequence, as all of the following but the ratios."""
        return self._mean(lambda one: len(one.rounds))

    @property
    def path_bits(self) -> float:
        return self._mean(lambda one: one.path_bits)

    @property
    def effective_bits(self) -> float:
        return self._mean(lambda one: one.effective_bits)

    @property
    def bits_per_round(self) -> float:
        return self.path_bits / self.rounds

    @property
    def bounded(self) -> bool:
        return all(one.bound is not None for one in self.sequences)

    @property
    def bound(self) -> float:
        """Rounds that the rule needs at least for these bits."""
        return self._mean(lambda one: one.bound.rounds if one.bound else 0)

    @property
    def forced(self) -> float:
        """Rounds with a token below the rule's floor: the part of the bound that is tight."""
        return self._mean(lambda one: one.bound.forced if one.bound else 0)

    @property
    def efficiency(self) -> float:
        """Bound / rounds, at most 1: how close the run came to what its rule allows."""
        return self.bound / self.rounds

    @property
    def scored(self) -> bool:
        """Whether every sequence was also predicted token by token."""
        return all(one.sequential_bits is not None for one in self.sequences)

    @property
    def sequential_bits(self) -> float:
        return self._mean(lambda one: one.sequential_bits or 0)

    @property
    def correlation(self) -> float:
        """Bits of the path beyond those of its tokens one at a time: the price of parallelism."""
        return self.path_bits - self.sequential_bits

    @property
    def unknown(self) -> int:
        return sum(one.unknown for one in self.sequences)

    def by_round(self) -> list[float]:
        """Mean bits of the first, second, ... round over the sequences that have it."""
        longest = max(len(one.rounds) for one in self.sequences)
        return [
            float(np.mean([s.rounds[t].bits for s in self.sequences if t < len(s.rounds)]))
            for t in range(longest)
        ]

    def _mean(self, of) -> float:
        return sum(map(of, self.sequences)) / len(self.sequences)


def _label(folder: RunFolder, config: DictConfig) -> str:
    """Of a run that has no summary."""
    known, name = choices("sampler"), folder.path.resolve().parent.name
    if name not in known:
        name, _ = option_of("sampler", config.sampler)
    return label(config, name) if name in known else name


def told_apart(runs: Sequence[RunBits]) -> list[RunBits]:
    """The runs with labels that say the task where there are several, and the folder where nothing
    else tells two of them apart."""
    several = len({run.task for run in runs}) > 1
    labels = [f"{run.label}, {run.task}" if several else run.label for run in runs]
    return [
        replace(run, label=name if labels.count(name) == 1 else f"{name} {run.mark}")
        for run, name in zip(runs, labels, strict=True)
    ]


def information_per_round(runs: list[RunBits], path: Path) -> None:
    """Writes a picture: mean bits of each round, one line per run."""
    import matplotlib

    matplotlib.use("Agg")  # draws into files only
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for run in runs:
        by_round = run.by_round()
        axis.plot(range(1, len(by_round) + 1), by_round, label=run.label, lw=1)
    axis.set(xlabel="round", ylabel="bits committed")
    axis.legend().set_in_layout(False)  # a long label must not squeeze the axes to nothing
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

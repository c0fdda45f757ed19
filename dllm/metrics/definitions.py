"""Every metric that is printed, defined once.

effective tokens = generated tokens before the first end token; NFE = model calls in which the
sequence took part, of every kind; TPF = sum of effective tokens / sum of NFE over the set
(micro); tokens/s = sum of effective tokens / sum of seconds, generation only, each step's time
shared by the batch (end to end: with tokenising and grading); eNFE = sum over the forwards of rows
computed / length of the canvas at that forward (its answer may be cut or grow later); latency =
seconds from entering the batch to leaving it. Totals, not means of ratios, unless the name says
macro. A sample that failed costs its forwards and seconds, but its tokens count in no rate.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any, Self

import numpy as np

from dllm.metrics.statistics import mcnemar, wilson


@dataclass(frozen=True)
class SampleResult:
    """One graded sample: one line of samples.jsonl."""

    id: str
    task: str
    prompt: str
    output: str
    """Text before the first end token."""
    tokens: list[int]
    """The whole generation region."""
    correct: bool | None
    """None: there was nothing to grade by."""
    failure: str | None
    prompt_length: int
    effective: int
    committed: int
    """Positions committed by decisions, padding included."""
    steps: int
    forwards: dict[str, int]
    """NFE by kind."""
    aux_forwards: int
    rows: int
    """Query positions computed."""
    enfe: float
    """The same in whole canvases."""
    seconds: float
    model_seconds: float
    latency: float
    peak_memory_mb: float
    other_seconds: float = 0.0
    """Tokenising the prompt and grading the answer; no part of `seconds`."""
    attended: int = 0
    """Stored key/value slots attended, over all forwards."""
    stale: int = 0
    """Those computed from a token that has changed since."""
    audited: int = 0
    """Decisions compared with the cache-free forward's."""
    audit_kl: float = 0.0
    audit_changed: int = 0
    checks: int = 0
    """Single checks of the constraint."""
    lookaheads: int = 0
    """Those that only tried likely fillings."""
    rejections: int = 0
    """Proposed tokens and changes that it refused."""
    timeouts: int = 0
    """Checks that ran out of time."""
    constraint_seconds: float = 0.0
    """Part of `seconds` spent in the constraint's reviews."""
    truncated: bool = False
    """The canvas could not grow further; what was decoded so far is the answer."""
    unparsed: bool = False
    """No answer could be read from the output; it is not correct either."""
    unfit: bool = False
    """The prompt and the answer's positions exceed the model's: nothing was decoded."""
    completion: str | None = None
    """Of an answer that was given up: a shortest text with which the constraint would end it."""
    scores: dict[str, float] = field(default_factory=dict)
    """The task's further metrics, in [0, 1]; `completed` says whether the completion is correct."""
    other_forwards: dict[str, int] = field(default_factory=dict)
    """Forwards of further models (a verifier), by name and kind; no part of the NFE."""

    @property
    def nfe(self) -> int:
        return sum(self.forwards.values())

    @property
    def forwards_of_all(self) -> int:
        """The NFE and the forwards of further models."""
        return self.nfe + sum(self.other_forwards.values())

    def contradiction(self) -> str | None:
        """What can't be true together; None if all can."""
        if self.effective > self.committed:
            return f"effective={self.effective} exceeds committed={self.committed}"
        if self.unfit and self.tokens:
            return f"unfit, but of {len(self.tokens)} tokens"
        if self.correct and (self.failure or self.unparsed or self.unfit):
            return "correct, but failed, unparsed or unfit"
        if self.committed > self.steps == 0:
            return f"committed={self.committed} in no step"
        if self.committed > self.forwards_of_all == 0:
            return f"committed={self.committed} after no forward"
        return None

    def row(self) -> dict[str, Any]:
        """Flat form for the tracker's table."""
        flat = asdict(self) | {"nfe": self.nfe}
        del flat["tokens"]
        for name in ("forwards", "other_forwards", "scores"):
            flat[name] = " ".join(f"{key}={value}" for key, value in getattr(self, name).items())
        return flat


@dataclass(frozen=True)
class Summary:
    """A set of samples in numbers."""

    n: int
    graded: int
    """Samples with an answer to grade by."""
    correct: int
    failed: int
    accuracy: float | None
    """Of the graded samples, as the interval; None where there is none."""
    accuracy_low: float
    accuracy_high: float
    nfe: float
    """Mean per sample."""
    nfe_median: float
    nfe_by_kind: dict[str, float]
    aux_forwards: float
    enfe: float
    steps: float
    effective: float
    tpf: float
    tpf_macro: float
    tpf_canvas: float
    tokens_per_second: float
    latency: float
    latency_p50: float
    latency_p95: float
    padding_share: float
    peak_memory_mb: float
    accuracy_by_task: dict[str, float]
    tokens_per_second_end_to_end: float = 0.0
    """Effective tokens per second, tokenising and grading included."""
    rows_per_token: float = 0.0
    """Query positions computed per effective token."""
    stale_share: float = 0.0
    """Share of the attended cache slots whose token had changed since they were computed."""
    audited: int = 0
    """Decisions compared with the cache-free forward's (`cache.audit`)."""
    audit_kl: float = 0.0
    """Mean divergence from the cache-free prediction over them, in nats."""
    audit_changed: float = 0.0
    """Share of them that would have been others."""
    checks: float = 0.0
    """The constraint's single checks, mean per sample."""
    lookaheads: float = 0.0
    """Those that only tried likely fillings, mean per sample."""
    vetoes_per_token: float | None = 0.0
    """What the constraint refused per effective token; None where there is no such token."""
    timeouts: int = 0
    """Checks that ran out of time."""
    constraint_share: float = 0.0
    """Share of the decode time spent in the constraint's reviews."""
    truncated: int = 0
    """Answers that the model had no positions left for."""
    unparsed: int = 0
    """Outputs without an answer that can be read; they count as not correct."""
    unfit: int = 0
    """Prompts that do not fit the model; they count as not correct."""
    scores: dict[str, float] = field(default_factory=dict)
    """Means of the task's further metrics over the samples that have them."""
    other_forwards: dict[str, float] = field(default_factory=dict)
    """Forwards of further models per sample, by name and kind."""

    @classmethod
    def of(cls, samples: Sequence[SampleResult]) -> Self:
        n, graded = len(samples), [s.correct for s in samples if s.correct is not None]
        correct = sum(graded)
        low, high = wilson(correct, len(graded)) if graded else (0.0, 1.0)
        nfe = sum(s.nfe for s in samples)
        effective = sum(s.effective for s in samples)
        committed = sum(s.committed for s in samples)
        finished = [s for s in samples if s.failure is None]
        earned = sum(s.effective for s in finished)
        kinds: Counter[str] = Counter()
        for sample in samples:
            kinds.update(sample.forwards)
        by_task: dict[str, list[bool]] = {}
        for sample in samples:
            if sample.correct is not None:
                by_task.setdefault(sample.task, []).append(sample.correct)
        latencies = [s.latency for s in samples]
        seconds = sum(s.seconds for s in samples)
        audited = sum(s.audited for s in samples)
        return cls(
            n=n,
            graded=len(graded),
            correct=correct,
            failed=sum(s.failure is not None for s in samples),
            accuracy=correct / len(graded) if graded else None,
            accuracy_low=low,
            accuracy_high=high,
            nfe=nfe / n,
            nfe_median=median(s.nfe for s in samples),
            nfe_by_kind={kind: count / n for kind, count in sorted(kinds.items())},
            aux_forwards=sum(s.aux_forwards for s in samples) / n,
            enfe=fmean(s.enfe for s in samples),
            steps=sum(s.steps for s in samples) / n,
            effective=effective / n,
            tpf=earned / nfe if nfe else 0.0,
            tpf_macro=sum(s.effective / s.nfe for s in finished if s.nfe) / n,
            tpf_canvas=sum(s.committed for s in finished) / nfe if nfe else 0.0,
            tokens_per_second=earned / seconds if seconds else 0.0,
            latency=fmean(latencies),
            latency_p50=float(np.quantile(latencies, 0.5)),
            latency_p95=float(np.quantile(latencies, 0.95)),
            padding_share=1 - effective / committed if committed else 0.0,
            peak_memory_mb=max(s.peak_memory_mb for s in samples),
            accuracy_by_task={
                task: sum(grades) / len(grades) for task, grades in sorted(by_task.items())
            },
            tokens_per_second_end_to_end=earned
            / max(1e-9, seconds + sum(s.other_seconds for s in samples)),
            rows_per_token=sum(s.rows for s in samples) / max(1, earned),
            stale_share=sum(s.stale for s in samples) / max(1, sum(s.attended for s in samples)),
            audited=audited,
            audit_kl=sum(s.audit_kl for s in samples) / max(1, audited),
            audit_changed=sum(s.audit_changed for s in samples) / max(1, audited),
            checks=sum(s.checks for s in samples) / n,
            lookaheads=sum(s.lookaheads for s in samples) / n,
            vetoes_per_token=sum(s.rejections for s in samples) / earned if earned else None,
            timeouts=sum(s.timeouts for s in samples),
            constraint_share=sum(s.constraint_seconds for s in samples)
            / max(1e-9, sum(s.seconds for s in samples)),
            truncated=sum(s.truncated for s in samples),
            unparsed=sum(s.unparsed for s in samples),
            unfit=sum(s.unfit for s in samples),
            scores={
                name: fmean(s.scores[name] for s in samples if name in s.scores)
                for name in dict.fromkeys(name for s in samples for name in s.scores)
            },
            other_forwards={
                name: sum(s.other_forwards.get(name, 0) for s in samples) / n
                for name in dict.fromkeys(name for s in samples for name in s.other_forwards)
            },
        )


@dataclass(frozen=True)
class Comparison:
    """A run against its baseline on the same samples.

    No ratio of times: the samples of a batch share its seconds, so that one run tells nothing of
    how far the next one would be from it (`python -m scripts.bench` repeats).
    """

    nfe_speedup: float | None
    """In forwards of all models: what a verifier adds is no gain. Over the samples that failed in
    neither run; None where there is none."""
    agreement: float
    """Share of samples with exactly the baseline's tokens; one that failed agrees with none."""
    mcnemar_p: float
    """Over the graded samples."""

    @classmethod
    def of(cls, results: Sequence[SampleResult], baseline: Sequence[SampleResult]) -> Self:
        """Raises `ValueError` unless both hold the same sample ids."""
        of_id = {s.id: s for s in baseline}
        if sorted(of_id) != sorted(s.id for s in results):
            raise ValueError("run and baseline hold different samples")
        pairs = [(s, of_id[s.id]) for s in results]
        graded = [(a.correct, bool(b.correct)) for a, b in pairs if a.correct is not None]
        finished = [(a, b) for a, b in pairs if a.failure is None and b.failure is None]
        ours = sum(a.forwards_of_all for a, _ in finished)
        return cls(
            nfe_speedup=sum(b.forwards_of_all for _, b in finished) / ours if ours else None,
            agreement=sum(a.tokens == b.tokens for a, b in finished) / len(pairs),
            mcnemar_p=mcnemar([a for a, _ in graded], [b for _, b in graded]),
        )

"""From a sample to a prompt, and from a decoded sequence to a graded sample."""

import resource
import time
from collections.abc import Sequence

import numpy as np
import torch

from dllm.engine.setting import DoesNotFit
from dllm.metrics.definitions import SampleResult
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.step.eos import first_eos
from dllm.step.outcome import Outcome
from dllm.tasks.base import Grade, Sample, Task


def encoded(tokenizer: Tokenizer, sample: Sample) -> tuple[int, ...]:
    """The model's chat of a sample's turns and prompt, up to and including the answer's prefix."""
    return tuple(tokenizer.chat(sample.messages, sample.prefix))


GAP = "[MASK]"


def filled_in(
    tokenizer: Tokenizer, spec: ModelSpec, sample: Sample, gen_length: int
) -> tuple[int, ...] | None:
    """The generation region of a sample whose answer has gaps only, ended by end tokens.

    Raises `DoesNotFit` where that is longer than `gen_length`.
    """
    if not sample.form:
        return None
    first, *others = (tokenizer.encode(part) for part in sample.form.split(GAP))
    tokens = [*first, *(token for part in others for token in (spec.mask_id, *part))]
    if len(tokens) > gen_length:
        raise DoesNotFit(
            f"sample {sample.id}: an answer of {len(tokens)} tokens exceeds gen_length={gen_length}"
        )
    return (*tokens, *[spec.eos_ids[0]] * (gen_length - len(tokens)))


def unfit(sample: Sample, prompt_length: int) -> SampleResult:
    """The result of a sample whose prompt does not fit: counted, not cut."""
    return SampleResult(
        id=sample.id,
        task=sample.task,
        prompt=sample.prompt,
        output="",
        tokens=[],
        correct=False,
        failure=None,
        prompt_length=prompt_length,
        effective=0,
        committed=0,
        steps=0,
        forwards={},
        aux_forwards=0,
        rows=0,
        enfe=0.0,
        seconds=0.0,
        model_seconds=0.0,
        latency=0.0,
        peak_memory_mb=_peak_memory_mb(),
        unfit=True,
    )


def answer_tokens(tokens: Sequence[int], spec: ModelSpec) -> list[int]:
    """What was decoded before the first end token."""
    end = first_eos(np.array(tokens), spec.eos_ids)
    return [token for token in tokens[:end] if token != spec.mask_id]


def grade(
    outcome: Outcome,
    sample: Sample,
    task: Task,
    tokenizer: Tokenizer,
    spec: ModelSpec,
    told: int = 0,
    other_seconds: float = 0.0,
) -> SampleResult:
    """
    told: tokens of the answer that were not decoded
    other_seconds: spent on the sample before it was decoded
    """
    began = time.perf_counter()
    text = task.answer_in(tokenizer.decode(answer_tokens(outcome.tokens, spec)))
    given = task.assess(sample, text)
    if outcome.failure is not None and given.correct is not None:
        given = Grade(correct=False)
    scores = dict(given.scores)
    if outcome.completion is not None:
        completed = task.assess(sample, task.answer_in(outcome.completion))
        scores["completed"] = float(bool(completed.correct))
    cost = outcome.cost
    return SampleResult(
        id=sample.id,
        task=sample.task,
        prompt=sample.prompt,
        output=text,
        tokens=list(outcome.tokens),
        correct=given.correct,
        failure=outcome.failure,
        prompt_length=outcome.prompt_length,
        effective=sum(len(answer_tokens(phase.tokens, spec)) for phase in outcome.phases()) - told,
        committed=outcome.committed,
        steps=cost.steps,
        forwards={str(kind): count for kind, count in cost.forwards.items()},
        other_forwards={f"{m} {kind}": n for (m, kind), n in cost.other_forwards.items()},
        aux_forwards=cost.aux_forwards,
        attended=cost.attended,
        stale=cost.stale,
        audited=cost.audited,
        audit_kl=cost.audit_kl,
        audit_changed=cost.audit_changed,
        checks=cost.checks,
        lookaheads=cost.lookaheads,
        rejections=cost.rejections,
        timeouts=cost.timeouts,
        constraint_seconds=cost.constraint_seconds,
        rows=cost.rows,
        enfe=cost.enfe,
        seconds=cost.seconds,
        model_seconds=cost.model_seconds,
        latency=outcome.latency,
        other_seconds=other_seconds + time.perf_counter() - began,
        peak_memory_mb=_peak_memory_mb(),
        truncated=outcome.truncated,
        unparsed=given.unparsed,
        completion=outcome.completion,
        scores=scores,
    )


def _peak_memory_mb() -> float:
    """Peak of the accelerator where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

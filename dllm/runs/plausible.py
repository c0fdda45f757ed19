"""What of a kept sample's line can be known to be wrong without decoding it again."""

from collections.abc import Callable, Mapping

from dllm.errors import ConfigError
from dllm.metrics.definitions import SampleResult
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.runs.grading import answer_tokens
from dllm.runs.parts import Parts
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Cost, Outcome
from dllm.step.sampler import Sampler
from dllm.tasks.base import Sample


def check(
    samples: Mapping[str, Sample],
    parts: Parts,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    gen_length: int,
) -> Callable[[SampleResult], str | None]:
    """Says what is wrong with a sample's line; None = nothing that is known.

    Checked are task and prompt, the tokens (their vocabulary, masks that no end-of-answer policy
    leaves, their number where the sampler and the policy fix it) and the output, which is their
    text. Not checked are the grade and the scores, which cost a program's execution in some tasks,
    and what only decoding tells: the counts and the times.
    """

    def wrong(result: SampleResult) -> str | None:
        sample, tokens = samples.get(result.id), result.tokens
        if sample is None:
            return f"{result.id!r} is no sample of this run"
        for name in ("task", "prompt"):
            if getattr(result, name) != getattr(sample, name):
                return f"{name}={getattr(result, name)!r:.60} is not the sample's"
        if max(tokens, default=0) >= spec.vocab_size:
            return f"token {max(tokens)} is outside the vocabulary of {spec.vocab_size}"
        if result.unfit:
            return None
        if result.failure is None and _left_open(tokens, spec.mask_id, parts.eos):
            return f"{tokens.count(spec.mask_id)} masks in an answer that did not fail"
        length = _length(result, parts, spec, gen_length)
        if length not in (None, len(tokens)):
            return f"{len(tokens)} tokens where gen_length={gen_length} gives {length}"
        text = parts.task.answer_in(tokenizer.decode(answer_tokens(tokens, spec)))
        return None if result.output == text else "output is not the text of its tokens"

    return wrong


def _left_open(tokens: list[int], mask: int, eos: EosPolicy) -> bool:
    """Whether there are masks that no policy leaves: but for those behind the last block."""
    if mask not in tokens:
        return False
    first = tokens.index(mask)
    behind = eos is EosPolicy.STOP_AFTER_BLOCK and first > 0
    return not behind or any(token != mask for token in tokens[first:])


def _length(result: SampleResult, parts: Parts, spec: ModelSpec, gen_length: int) -> int | None:
    """Positions of the answer; None where the sampler or the policy decides."""
    sampler, start = parts.sampler, result.prompt_length
    if parts.eos.shortens or sampler.decides_length or start > spec.max_positions:
        return None
    prompt = Prompt(result.id, (spec.pad_id,) * start, gen_length)
    if _goes_on(sampler, prompt, spec):
        return None
    try:
        layout = sampler.layout(prompt, spec)
    except ConfigError:
        return None
    return min(layout.length, layout.kept) - start


def _goes_on(sampler: Sampler, prompt: Prompt, spec: ModelSpec) -> bool:
    """Whether another generation follows this one, of a length of its own."""
    outcome = Outcome(prompt.sample_id, len(prompt.tokens), (), 0, Cost(), 0.0)
    return sampler.next_phase(prompt, outcome, spec) is not outcome

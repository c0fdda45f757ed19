"""Tokens of an answer as other projects count them, to stand beside their figures.

Ours are the effective tokens alone; a figure of a paper is compared under the paper's own count,
whose name stands in brackets behind it (`TPS[fastdllm-answer]`). Padding and prompt, in or out,
move a speed by factors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dllm.metrics.definitions import SampleResult


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a count has to know of tokenizer and task."""

    eos: int
    """The one end token that most projects leave out; they count other ones."""
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    """Special tokens are spelled out."""
    stop: Sequence[str]
    """Texts that end an answer."""

    def spelled_out(self, sample: SampleResult) -> Sequence[int]:
        """The region's text up to the first stop text, tokenised anew, padding included."""
        text = self.decode(sample.tokens)
        ends = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        return self.encode(text[: min(ends, default=None)])


Count = Callable[[SampleResult, Vocabulary], int]


def _without_eos(tokens: Sequence[int], words: Vocabulary) -> int:
    return sum(token != words.eos for token in tokens)


COUNTERS: dict[str, tuple[str, Count]] = {
    "effective": (
        "canvas positions before the first end token (ours)",
        lambda sample, words: sample.effective,
    ),
    "answer": (
        "the answer's text before the first stop text and end token, tokenised anew",
        lambda sample, words: len(words.encode(sample.output)),
    ),
    "canvas": (
        "all positions of the answer, padding included (ParallelBench)",
        lambda sample, words: len(sample.tokens),
    ),
    "fastdllm-answer": (
        "text up to the first stop text, tokenised anew, without EOS but with other end tokens",
        lambda sample, words: _without_eos(words.spelled_out(sample), words),
    ),
    "fastdllm-dream": (
        "all positions but EOS, whatever the stop texts (Fast-dLLM on Dream)",
        lambda sample, words: _without_eos(sample.tokens, words),
    ),
    "canvas+prompt": (
        "prompt and all positions but EOS (Fast-dLLM's HumanEval)",
        lambda sample, words: sample.prompt_length + _without_eos(sample.tokens, words),
    ),
    "adablock-numel": (
        "as fastdllm-answer, EOS included",
        lambda sample, words: len(words.spelled_out(sample)),
    ),
    "positions decoded": (
        "positions with a commit step, padding included (FreeDave)",
        lambda sample, words: sample.committed,
    ),
    "d2cache-eos": (
        "positions before the first end token (d2Cache)",
        lambda sample, words: sample.effective,
    ),
    "dinfer-noneos": (
        "all positions but EOS (dInfer)",
        lambda sample, words: _without_eos(sample.tokens, words),
    ),
    "d3llm-retok": (
        "the cleaned answer's text, tokenised anew (d3LLM)",
        lambda sample, words: len(words.encode(sample.output.strip())),
    ),
}
"""Name, as behind a published figure -> (definition, count)."""


@dataclass(frozen=True)
class Speed:
    """One count over a set of samples; totals, not means of ratios."""

    tokens: float
    """Per sample."""
    per_forward: float
    per_second: float

    @classmethod
    def of(cls, name: str, samples: Sequence[SampleResult], words: Vocabulary) -> "Speed":
        _, count = COUNTERS[name]
        total = sum(count(sample, words) for sample in samples)
        forwards = sum(sample.nfe for sample in samples)
        seconds = sum(sample.seconds for sample in samples)
        return cls(
            total / len(samples),
            total / forwards if forwards else 0.0,
            total / seconds if seconds else 0.0,
        )

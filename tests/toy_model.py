"""Decoding a known distribution with any sampler."""

from typing import Any

from tiny_decoding import SPEC, decode

from dllm.forward.toy import FIRST, PROMPT, OraclePredictor, spelled
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from dllm.step.sampler import Sampler
from dllm.tasks.toy_oracle import ToyOracle


__all__ = ["FIRST", "PROMPT", "OraclePredictor", "decoded", "rounds", "text"]


def decoded(rule: Sampler, oracle: ToyOracle, count: int = 1, **options: Any) -> list[Outcome]:
    """`count` samples decoded with the oracle's predictions."""
    prompts = [Prompt(str(n), PROMPT, oracle.length) for n in range(count)]
    options = {"record": True, **options}
    return [*decode(rule, prompts, OraclePredictor(oracle, SPEC), **options).values()]


def text(oracle: ToyOracle, outcome: Outcome) -> str:
    return spelled(oracle, outcome.tokens)


def rounds(outcome: Outcome) -> list[list[int]]:
    """Positions that each decision committed."""
    assert outcome.trace is not None
    return [sorted(step.positions) for step in outcome.trace.steps if step.positions]

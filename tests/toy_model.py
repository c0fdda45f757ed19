"""A toy oracle in the place of a model: decoding a known distribution with any sampler."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tiny_decoding import EOS, MASK, SPEC, decode

from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction
from dllm.step.sampler import Sampler
from dllm.tasks.toy_oracle import UNKNOWN, ToyOracle


FIRST = max(MASK, EOS) + 1
"""Token of the first value."""
PROMPT = (5, 6, 7)


@dataclass
class OraclePredictor:
    """Predicts the exact probabilities, given what is decided on each canvas, and the end token
    behind the oracle's texts."""

    oracle: ToyOracle
    spec: ModelSpec = SPEC
    model: Any = field(
        default_factory=lambda: SimpleNamespace(device=torch.device("cpu"), dtype=torch.float64)
    )

    def __post_init__(self) -> None:
        vocabulary = FIRST + len(self.oracle.alphabet)
        self.spec = replace(self.spec, vocab_size=max(vocabulary, max(PROMPT) + 1))

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        wanted = plan.logits_for
        assert wanted is not None
        table = np.zeros((*wanted.shape, self.spec.vocab_size))
        table[..., EOS] = 1.0
        for entry in range(len(wanted)):
            fed = dict(zip(plan.slots[entry].tolist(), plan.tokens[entry].tolist(), strict=True))
            answer = [fed.get(len(PROMPT) + i, MASK) for i in range(self.oracle.length)]
            found = self.oracle.conditionals(spelled(self.oracle, answer))
            for row, slot in enumerate(wanted[entry].tolist()):
                if 0 <= (position := slot - len(PROMPT)) < self.oracle.length:
                    table[entry, row, EOS] = 0.0
                    table[entry, row, FIRST : FIRST + found.shape[1]] = found[position]
        # Impossible tokens are unlikely rather than refused.
        return Prediction(torch.from_numpy(table).clamp(min=1e-30).log(), None)


def spelled(oracle: ToyOracle, tokens: Sequence[int]) -> str:
    """The tokens as a text of the oracle's; end tokens are left out."""
    return "".join(
        UNKNOWN if token == MASK else oracle.alphabet[token - FIRST]
        for token in tokens
        if token != EOS
    )


def decoded(rule: Sampler, oracle: ToyOracle, count: int = 1, **options: Any) -> list[Outcome]:
    """`count` samples decoded with the oracle's predictions."""
    prompts = [Prompt(str(n), PROMPT, oracle.length) for n in range(count)]
    options = {"record": True, **options}
    return [*decode(rule, prompts, OraclePredictor(oracle), **options).values()]


def text(oracle: ToyOracle, outcome: Outcome) -> str:
    return spelled(oracle, outcome.tokens)


def rounds(outcome: Outcome) -> list[list[int]]:
    """Positions that each decision committed."""
    assert outcome.trace is not None
    return [sorted(step.positions) for step in outcome.trace.steps if step.positions]

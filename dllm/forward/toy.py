"""A toy oracle in the place of a model: what is lost on exact probabilities is the rule's price."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction
from dllm.tasks.toy_oracle import UNKNOWN, ToyOracle


MASK, EOS = 0, 1
FIRST = 2
"""Token of the first value."""
PROMPT = (5, 6, 7)
"""Says nothing; a sequence needs one."""
SPEC = ModelSpec(
    family="llada",
    vocab_size=8,
    d_model=8,
    n_layers=1,
    n_heads=1,
    n_kv_heads=1,
    head_dim=8,
    d_ff=8,
    norm_eps=1e-5,
    rope_theta=10000.0,
    max_positions=64,
    mask_id=MASK,
    eos_ids=(EOS,),
    pad_id=EOS,
    bos_id=None,
)
"""Of a model that the oracle stands for: full attention, nothing shifted."""


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

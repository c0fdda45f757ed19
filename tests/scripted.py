"""Predictions that change from forward to forward, and configurations built like a command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from tiny_decoding import SPEC
from torch import Tensor

from dllm.config import build, compose
from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction
from dllm.step.sampler import Sampler


def built(*options: str) -> Sampler:
    return build(compose(options).sampler, "sampler")


def distribution(token: int, probability: float, vocabulary: int = SPEC.vocab_size) -> Tensor:
    """Logits with this probability for a token and the rest shared evenly."""
    p = torch.full((vocabulary,), (1 - probability) / (vocabulary - 1), dtype=torch.float64)
    p[token] = probability
    return p.log()


@dataclass
class Script:
    """Forward n predicts position i as script[n][i] = (token, probability); the last one
    repeats."""

    script: Sequence[Sequence[tuple[int, float]]]
    prompt_length: int
    spec: ModelSpec = SPEC
    forwards: int = 0
    model: Any = field(
        default_factory=lambda: SimpleNamespace(device=torch.device("cpu"), dtype=torch.float64)
    )

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        wanted = plan.logits_for
        assert wanted is not None
        scene = self.script[min(self.forwards, len(self.script) - 1)]
        self.forwards += 1
        logits = torch.zeros(*wanted.shape, self.spec.vocab_size, dtype=torch.float64)
        for entry, row in (wanted >= 0).nonzero().tolist():
            logits[entry, row] = distribution(*scene[int(wanted[entry, row]) - self.prompt_length])
        return Prediction(logits, None)

"""Muon for the matrices, AdamW for embeddings and norms, warm-up / stable / linear decay."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from dllm.errors import ConfigError
from dllm.training.checkpoints import load_optimizer
from dllm.training.checks import not_below


@dataclass(frozen=True)
class Rates:
    """Learning rates and their schedule; the decay is the last `decay` share of the steps."""

    matrices: float = 0.02
    others: float = 3e-3
    warmup_steps: int = 100
    decay: float = 0.25
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        not_below(self, "rates", 0, "matrices", "others", "warmup_steps", "weight_decay")
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"rates.decay={self.decay} is outside [0, 1]")

    def factor(self, step: int, total_steps: int) -> float:
        """Multiplier in [0, 1] of both rates at `step` (counted from 0)."""
        left = (total_steps - step) / max(1.0, self.decay * total_steps)
        return min(1.0, (step + 1) / max(1, self.warmup_steps), max(0.0, left))


class Optimizers:
    """Both kinds of optimizer as one."""

    def __init__(self, model: nn.Module, rates: Rates) -> None:
        matrices, others = [], []
        for name, parameter in model.named_parameters():
            is_matrix = parameter.ndim == 2 and not name.startswith(("embed.", "head."))
            (matrices if is_matrix else others).append(parameter)
        self.rates = rates
        muon = partial(
            torch.optim.Muon, lr=rates.matrices, momentum=0.95, weight_decay=rates.weight_decay
        )
        # two halves, because orthogonalising one matrix is too little work for two threads
        self.parts: dict[str, Optimizer] = {
            "matrices_even": muon(matrices[::2]),
            "matrices_odd": muon(matrices[1::2]),
            "others": torch.optim.AdamW(
                others, lr=rates.others, betas=(0.9, 0.98), weight_decay=0.0
            ),
        }

    def step(self, factor: float, workers: Executor) -> None:
        """One update at `factor` times the rates, the parts side by side; clears the gradients."""
        for name, optimizer in self.parts.items():
            rate = self.rates.others if name == "others" else self.rates.matrices
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        list(workers.map(lambda part: part.step(), self.parts.values()))
        for optimizer in self.parts.values():
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict:
        return {name: optimizer.state_dict() for name, optimizer in self.parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, optimizer in self.parts.items():
            load_optimizer(optimizer, state[name])


def initialise(model: nn.Module, seed: int) -> None:
    """Small tied embeddings; projections back into the residual stream start at zero.

    nn.Embedding's own N(0, 1) would give initial logits a standard deviation of sqrt(d_model).
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            nn.init.ones_(parameter)
        elif name.endswith(("attn.o.weight", "mlp.down.weight")):
            nn.init.zeros_(parameter)
        else:
            std = 0.05 if name.startswith(("embed.", "head.")) else parameter.shape[1] ** -0.5
            nn.init.normal_(parameter, std=std, generator=generator)

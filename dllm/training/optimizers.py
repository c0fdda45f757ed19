"""Muon for the matrices, AdamW for embeddings and norms, warm-up / stable / linear decay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Rates:
    """Learning rates and their schedule; the decay is the last `decay` share of the steps."""

    matrices: float = 0.02
    others: float = 3e-3
    warmup_steps: int = 100
    decay: float = 0.25
    weight_decay: float = 0.01

    def factor(self, step: int, total_steps: int) -> float:
        """Multiplier in [0, 1] of both rates at `step` (counted from 0)."""
        left = (total_steps - step) / max(1.0, self.decay * total_steps)
        return min(1.0, (step + 1) / max(1, self.warmup_steps), max(0.0, left))


class Optimizers:
    """The two optimizers as one."""

    def __init__(self, model: nn.Module, rates: Rates) -> None:
        matrices, others = [], []
        for name, parameter in model.named_parameters():
            is_matrix = parameter.ndim == 2 and not name.startswith(("embed.", "head."))
            (matrices if is_matrix else others).append(parameter)
        self.rates = rates
        self.parts = {
            "matrices": torch.optim.Muon(
                matrices, lr=rates.matrices, momentum=0.95, weight_decay=rates.weight_decay
            ),
            "others": torch.optim.AdamW(
                others, lr=rates.others, betas=(0.9, 0.98), weight_decay=0.0
            ),
        }

    def step(self, factor: float) -> None:
        for name, optimizer in self.parts.items():
            for group in optimizer.param_groups:
                group["lr"] = getattr(self.rates, name) * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict:
        return {name: optimizer.state_dict() for name, optimizer in self.parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, optimizer in self.parts.items():
            optimizer.load_state_dict(state[name])


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

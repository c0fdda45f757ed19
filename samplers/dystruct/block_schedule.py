"""In which order and in how many steps a window's blocks are decoded (Dystruct, reconstruction).

The energy of block [a, z) is w_H H + w_C (1 - C): H its mean instability, C how close it lies to
decided positions l (left) and r (right), C = (exp(-(a-l-1)/ell) + exp(-(r-z)/ell)) / 2. The lowest
energy is next, so that stable and anchored blocks come first.
"""

from dataclasses import dataclass
from math import exp

import numpy as np
import torch
from jaxtyping import Bool

from samplers.parts.checks import not_below


@dataclass(frozen=True, kw_only=True)
class BlockSchedule:
    instability_weight: float
    """w_H (>= 0); 0 = by anchors alone."""
    anchor_weight: float
    """w_C (>= 0)."""
    anchor_reach: float
    """ell: positions over which an anchor fades (> 0)."""
    temperature: float
    """T_s of the choice (>= 0); 0 = lowest energy, leftmost on ties."""
    steps_per_token: float
    """nu: steps of a window per position (> 0)."""
    step_floor: float
    """h_0: share of steps that does not depend on instability (> 0)."""

    def __post_init__(self) -> None:
        for name in ("instability_weight", "anchor_weight", "temperature"):
            not_below(f"schedule.{name}", getattr(self, name), 0)
        for name in ("anchor_reach", "steps_per_token", "step_floor"):
            not_below(f"schedule.{name}", getattr(self, name), 1e-9)

    def anchoring(self, decided: Bool[np.ndarray, "canvas"], start: int, end: int) -> float:
        """C of block [start, end); a side without decided positions counts 0."""
        left, right = decided[:start].nonzero()[0], decided[end:].nonzero()[0]
        near = exp(-(start - left[-1] - 1) / self.anchor_reach) if left.size else 0.0
        far = exp(-right[0] / self.anchor_reach) if right.size else 0.0
        return (near + far) / 2

    def energy(self, instability: float, anchoring: float) -> float:
        return self.instability_weight * instability + self.anchor_weight * (1 - anchoring)

    def choose(self, energies: list[float], generator: torch.Generator) -> int:
        """Index of the next block."""
        if not self.temperature:
            return int(np.argmin(energies))
        weights = -torch.tensor(energies, dtype=torch.float64) / self.temperature
        share = weights.softmax(dim=0).to(generator.device)
        return int(torch.multinomial(share, 1, generator=generator))

    def steps(self, lengths: list[int], instabilities: list[float]) -> list[int]:
        """n_k: steps of each block, at most one per position."""
        total = max(len(lengths), round(self.steps_per_token * sum(lengths)))
        weights = [n * (h + self.step_floor) for n, h in zip(lengths, instabilities, strict=True)]
        return [
            min(max(1, int(total * weight / sum(weights) + 0.5)), length)
            for weight, length in zip(weights, lengths, strict=True)
        ]

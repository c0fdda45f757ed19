"""Branches of a request as a sampler works with them: side by side, then one of them picked."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.prediction import View


def beside(
    canvas: Canvas, alternatives: Int[np.ndarray, "batch extra canvas"]
) -> Int[np.ndarray, "batch branches canvas"]:
    """Branches of which the first is the sequence's own canvas."""
    return np.concatenate((canvas.tokens[:, None], alternatives), axis=1)


@dataclass(frozen=True)
class Branches:
    """The branches of a view at its rows; without any in the request, its own canvas."""

    view: View
    tokens: Int[Tensor, "batch branches rows"]
    """-1 = padding, or a branch that the sequence lacks."""
    logits: Float[Tensor, "batch branches rows vocab"]

    @classmethod
    def of(cls, view: View) -> "Branches":
        """Tokens that a constraint refused are out of every branch, and so are branches that hold
        one at a position that is still open. A mask token that would be proposed gives way on each
        branch as the engine makes it do on the sequence's own canvas."""
        real = view.positions >= 0
        own = view.tokens.where(real, -1)[:, None]
        if view.branches is None or view.branch_logits is None:
            return cls(view, own, view.logits[:, None])
        at = view.positions.clamp(min=0)[:, None].expand(-1, view.branches.shape[1], -1)
        tokens = view.branches.gather(2, at).where(real[:, None], -1)
        logits, mask = view.branch_logits, view.canvas.mask_id
        undecided = (tokens == mask) & view.candidates[:, None]
        hidden = undecided & (scores.highest(logits)[1] == mask)
        if hidden.any():
            logits = logits.clone()
            logits[..., mask].masked_fill_(hidden, -torch.inf)
        # What the first branch has lost already is no refusal.
        refused = (torch.isneginf(view.logits) & ~torch.isneginf(logits[:, 0]))[:, None]
        held = refused.expand(-1, tokens.shape[1], -1, -1).gather(3, tokens.clamp(min=0)[..., None])
        lost = (held[..., 0] & (tokens != own)).any(dim=2, keepdim=True)
        return cls(view, tokens.where(~lost, -1), logits.masked_fill(refused, -torch.inf))

    def as_sequences(self) -> View:
        """Every branch as a sequence of its own: row b * branches + m is branch m of sequence b."""
        view, count = self.view, self.tokens.shape[1]
        canvas, flat = view.canvas.branched(count), self.tokens.flatten(0, 1)
        positions = view.positions.repeat_interleave(count, dim=0)
        held, at = flat.cpu().numpy(), positions.cpu().numpy()
        entry, column = ((held >= 0) & (at >= 0)).nonzero()
        canvas.tokens[entry, at[entry, column]] = held[entry, column]
        candidates = view.candidates.repeat_interleave(count, dim=0) & (flat == canvas.mask_id)
        return View(canvas, positions, self.logits.flatten(0, 1), candidates)

    def split(
        self, values: Shaped[Tensor, "entries rows"]
    ) -> Shaped[Tensor, "batch branches rows"]:
        """Values of `as_sequences` by branch."""
        return values.unflatten(0, self.tokens.shape[:2])


def picked(
    values: Shaped[Tensor, "batch branches rows"], choice: Int[Tensor, "batch"]
) -> Shaped[Tensor, "batch rows"]:
    """The values of one branch of each sequence."""
    return values.gather(1, choice[:, None, None].expand(-1, 1, values.shape[2]))[:, 0]

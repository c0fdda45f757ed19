"""Rows of a view laid out as their blocks: what rules about neighbours are written in."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm.step.prediction import View


class BlockRows:
    """Maps [batch, rows] to [batch, width] by place in the current block, and back."""

    def __init__(self, view: View):
        start = view.column(view.canvas.block_start)
        size = view.column(view.canvas.block_end) - start
        self.width = int((view.canvas.block_end - view.canvas.block_start).max())
        place = view.positions - start
        within = (view.positions >= 0) & (place >= 0) & (place < size)
        # Rows outside the block share an extra last column.
        self._place = place.where(within, self.width)
        self.inside: Bool[Tensor, "batch width"] = (
            torch.arange(self.width, device=view.device) < size
        )

    def dense(self, rows: Tensor, fill: float | bool) -> Tensor:
        out = rows.new_full((len(rows), self.width + 1), fill)
        return out.scatter(1, self._place, rows)[:, :-1]

    def rows(self, dense: Tensor) -> Tensor:
        """Values of the block at the view's rows, zero elsewhere."""
        wide = torch.cat((dense, dense.new_zeros(len(dense), 1)), dim=1)
        return wide.gather(1, self._place)

    def uniform(self, view: View) -> Float[Tensor, "batch width"]:
        """U[0, 1) per place of a sequence's block, from its own generator; 0 behind it."""
        drawn = torch.zeros(self.inside.shape, device=view.device)
        for row, generator in enumerate(view.canvas.generators):
            # Only the own block is drawn: the widest of the batch would tie the streams together.
            own = self.inside[row]
            drawn[row, own] = torch.rand(int(own.sum()), generator=generator, device=view.device)
        return drawn

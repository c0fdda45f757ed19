"""A sampler's memory between steps: named tensors with one row per sequence.

Declared rather than ad hoc, so that the loop can reset a block, hand a batch row to the next
sequence and drop finished ones without knowing what the tensors mean.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


Axis = Literal["canvas"] | int


@dataclass(frozen=True)
class StateField:
    """One tensor [batch, *shape] of a sampler's state."""

    name: str
    shape: tuple[Axis, ...] = ()
    """`"canvas"` stands for the canvas capacity (index by absolute position)."""
    dtype: torch.dtype = torch.float32
    fill: float = 0
    reset: Literal["sequence", "block"] = "sequence"
    """When a row returns to `fill`: on entry of a sequence, or also of each block."""


class SamplerState:
    """Tensors by field name; index as `state["credit"]`, assign to replace a whole tensor (its
    trailing axes may then differ from the declaration, e.g. to widen a list)."""

    def __init__(self, fields: Iterable[StateField], capacity: int, device: torch.device | str):
        self._fields = {field.name: field for field in fields}
        self._capacity = capacity
        self._tensors = {
            name: self._fresh(field, 0, torch.device(device))
            for name, field in self._fields.items()
        }

    def _fresh(self, field: StateField, batch: int, device: torch.device) -> Tensor:
        shape = [self._capacity if axis == "canvas" else axis for axis in field.shape]
        return torch.full((batch, *shape), field.fill, dtype=field.dtype, device=device)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        if value.shape[0] != self._tensors[name].shape[0]:
            raise ValueError(f"state {name}: {value.shape[0]} rows instead of {len(self[name])}")
        self._tensors[name] = value

    def append(self) -> None:
        """Adds one sequence as the last row."""
        for name, tensor in self._tensors.items():
            field = self._fields[name]
            if len(tensor):
                row = torch.full_like(tensor[:1], field.fill)
                self._tensors[name] = torch.cat((tensor, row))
            else:
                # A replaced tensor's own trailing axes end with its last sequence.
                self._tensors[name] = self._fresh(field, 1, tensor.device)

    @torch.inference_mode()
    def hand_on(self, row: int) -> None:
        """Makes a row that of a new sequence, in place."""
        for name, field in self._fields.items():
            self._tensors[name][row] = field.fill

    def keep(self, rows: list[int]) -> None:
        """Drops every sequence that is not in `rows`."""
        for name, tensor in self._tensors.items():
            self._tensors[name] = tensor[rows]

    def branched(self, count: int) -> "SamplerState":
        """A copy in which `count` rows in a row stand for each sequence."""
        copied = SamplerState((), self._capacity, "cpu")
        copied._fields = self._fields
        copied._tensors = {
            name: tensor.repeat_interleave(count, dim=0) for name, tensor in self._tensors.items()
        }
        return copied

    def stacked(self, name: str, rows: Sequence[Tensor]) -> Tensor:
        """Rows of one field as a batch; one that has less room than others (credits widen) is
        filled up."""
        room = max(row.shape[-1] for row in rows) if rows[0].dim() > 1 else 0
        fill = self._fields[name].fill
        return torch.cat(
            [F.pad(r, (0, room - r.shape[-1]), value=fill) if r.dim() > 1 else r for r in rows]
        )

    def take(self, row: int) -> "SamplerState":
        """A copy of one sequence's rows."""
        taken = SamplerState((), self._capacity, "cpu")
        taken._fields = self._fields
        taken._tensors = {
            name: tensor[row : row + 1].clone() for name, tensor in self._tensors.items()
        }
        return taken

    @torch.inference_mode()
    def enter_block(self, row: int) -> None:
        for name, field in self._fields.items():
            if field.reset == "block":
                self._tensors[name][row] = field.fill

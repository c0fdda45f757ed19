"""Training batches of block diffusion with shifted logits (Fast-dLLM v2, arXiv 2509.26328).

A row is fed once as it is (clean copy) and its answer twice more with masks, in one sequence. Rows
of the clean copy see the clean blocks up to their own; rows of a masked copy see the clean blocks
before theirs, and their own block of the same copy. What one copy masks the other shows
(complementary masks), so that every token is learnt from each row. The row before a position
predicts it: a block's first token is read off the clean block before it (which keeps the next-token
loss of the base), any other off its own copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dllm.models.transformer import Layer, LayerRun


@dataclass(frozen=True)
class Row:
    """Prompt and answer, a whole number of blocks."""

    ids: list[int]
    prompt: int
    """Tokens of the prompt."""


@dataclass(frozen=True)
class BlockBatch:
    tokens: Tensor
    """int64 [rows, length]: the clean copy, then both masked ones, each padded."""
    positions: Tensor
    """int64 [rows, length], rotary positions."""
    copy: Tensor
    """int64 [rows, length]: 0 clean, 1 and 2 masked, -1 padding."""
    clean: int
    """Columns of the clean copy."""
    block: int
    states: Tensor
    """int64 [targets], flat indices of the rows that predict."""
    targets: Tensor
    """int64 [targets], what they should."""

    @property
    def places(self) -> Tensor:
        """Place in its block of every target [targets]; the state is of the position before."""
        return (self.positions.flatten()[self.states] + 1) % self.block

    def visible(self) -> Tensor:
        """What each row attends to, bool [rows, length, length]; padding sees its own block."""
        block = self.positions // self.block
        query, key = (
            (block[:, :, None], self.copy[:, :, None]),
            (block[:, None], self.copy[:, None]),
        )
        past = torch.where(query[1] == 0, key[0] <= query[0], key[0] < query[0])
        own = (key[1] == query[1]) & (key[0] == query[0])
        return ((key[1] == 0) & (query[1] >= 0) & past) | own

    def attention(self, dtype: torch.dtype) -> LayerRun:
        """Layers under `visible`, 2.5 times faster than under the whole mask: the copies are
        multiplied by the clean one, and by themselves within blocks only."""
        visible, clean, block = self.visible(), self.clean, self.block
        hidden = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, -torch.inf)
        to_clean = hidden[:, None, None, :, :clean]
        own = hidden[:, clean:, clean:].unflatten(1, (-1, block)).unflatten(3, (-1, block))
        # Only the diagonal: a block and itself.
        to_own = own.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)[:, None, :, None]

        def grouped(x: Tensor) -> Tensor:
            """[..., heads, length, n] -> [..., heads * length, n]"""
            return x.flatten(-3, -2)

        def run(_: int, layer: Layer, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
            attn, normed = layer.attn, layer.attn_norm(x)
            k, v = attn.keys(normed, tables), attn.values(normed)
            q = attn.queries(normed, tables).unflatten(1, (k.shape[1], -1))
            q = q * attn.spec.head_dim**-0.5  # [rows, kv_heads, group, length, head_dim]
            group = q.shape[2]
            past, values = k[:, :, :clean].transpose(-1, -2), v[:, :, :clean]
            scores = (grouped(q) @ past).unflatten(2, (group, -1)) + to_clean
            of_clean = scores[:, :, :, :clean].softmax(-1)
            # [rows, kv_heads, blocks, ...]
            blocks = q[:, :, :, clean:].unflatten(3, (-1, block)).transpose(2, 3)
            k_own = k[:, :, clean:].unflatten(2, (-1, block)).transpose(-1, -2)
            v_own = v[:, :, clean:].unflatten(2, (-1, block))
            inside = (grouped(blocks) @ k_own).unflatten(3, (group, block)) + to_own
            inside = inside.transpose(2, 3).flatten(3, 4)
            shares = torch.cat((scores[:, :, :, clean:], inside), dim=-1).softmax(-1)
            shares, inside = shares[..., :clean], shares[..., clean:]
            inside = inside.unflatten(3, (-1, block)).transpose(2, 3)
            mixed = (grouped(inside) @ v_own).unflatten(3, (group, block))
            out = grouped(torch.cat((of_clean, shares), dim=3)) @ values
            out = out.unflatten(2, (group, -1))
            out = out + torch.nn.functional.pad(
                mixed.transpose(2, 3).flatten(3, 4), (0, 0, clean, 0)
            )
            x = x + attn.o(out.flatten(1, 2).transpose(1, 2).flatten(-2))
            return x + layer.mlp(layer.mlp_norm(x))

        return run


@dataclass(frozen=True, kw_only=True)
class ShiftedBlocks:
    block: int
    """Positions per block, counted from position 0."""
    opening: float
    """Share of the blocks met as decoding meets them: all masks in one copy, and in the other a
    known beginning before masks."""

    def __call__(
        self, rows: Sequence[Row], mask_id: int, pad_id: int, generator: torch.Generator
    ) -> BlockBatch:
        # The last clean block predicts nothing.
        clean = max(len(row.ids) for row in rows) - self.block
        noisy = max(len(row.ids) - row.prompt // self.block * self.block for row in rows)
        length = clean + 2 * noisy
        tokens = torch.full((len(rows), length), pad_id)
        # Padding has blocks of its own, too.
        positions = torch.arange(clean, clean + length).repeat(len(rows), 1)
        positions[:, clean:] = positions[:, clean:] // self.block * self.block
        copy = torch.full((len(rows), length), -1)
        states: list[Tensor] = []
        targets: list[Tensor] = []

        def place(r: int, begin: int, first: int, ids: Tensor, number: int) -> None:
            part = slice(begin, begin + len(ids))
            tokens[r, part], copy[r, part] = ids, number
            positions[r, part] = torch.arange(first, first + len(ids))

        for r, row in enumerate(rows):
            ids, index = torch.tensor(row.ids), torch.arange(len(row.ids))
            answer, start = index >= row.prompt, row.prompt // self.block * self.block
            place(r, 0, 0, ids[: -self.block], 0)
            at = (answer & (index % self.block == 0)).nonzero().flatten()
            states.append(r * length + at - 1)
            targets.append(ids[at])
            for number, drawn in enumerate(self._masks(len(ids), generator), 1):
                begin, masked = clean + (number - 1) * noisy, drawn & answer
                place(r, begin, start, torch.where(masked, mask_id, ids)[start:], number)
                at = (masked & (index % self.block != 0)).nonzero().flatten()
                states.append(r * length + begin + at - start - 1)
                targets.append(ids[at])
        return BlockBatch(
            tokens, positions, copy, clean, self.block, torch.cat(states), torch.cat(targets)
        )

    def _masks(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What either copy hides [size], of every block."""
        blocks = size // self.block
        share = torch.rand(blocks, 1, generator=generator)
        one = torch.rand(blocks, self.block, generator=generator) < share
        opening = torch.rand(blocks, 1, generator=generator) < self.opening
        cut = torch.randint(1, max(2, self.block), (blocks, 1), generator=generator)
        behind = torch.arange(self.block) >= cut
        first = torch.where(opening, True, one)
        second = torch.where(opening, behind, ~one)
        return first.flatten(), second.flatten()

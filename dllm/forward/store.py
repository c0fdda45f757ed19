"""Position-indexed store of rotated keys and values.

Slot = absolute position, row = sequence. All memory is allocated on construction, for as many rows
as a batch may have; the rows in use are the first ones, and a finished sequence hands its row on.
One post-rotary store serves every family; it gave the same logits as the official pre-rotary ones.
"""

import itertools
from collections.abc import Callable, Hashable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm.models.spec import ModelSpec
from dllm.models.transformer import KeyValueExchange
from dllm.step.plan import Plan
from dllm.step.transfer import sent, sent_together


_Write = Callable[[int, Tensor, Tensor], None]


_Rows = tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], Int[np.ndarray, "n"]]
"""Entry, fed row and slot of each."""


@dataclass
class _Pending:
    """A forward over branches."""

    plan: Plan
    kept: _Rows
    """Rows that stay if their entry's branch is adopted."""
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Keys and values of all fed rows by layer."""

    def note(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.layers[layer] = (k, v)


@dataclass(frozen=True)
class Opened:
    """How one forward meets the store; tensors on the host."""

    exchange: KeyValueExchange | None
    """For the layers; None = they attend to the fed rows alone."""
    mask: Bool[Tensor, "b 1 q k"] | None
    """Over the keys that the exchange returns; None = everything is visible."""
    slots: Callable[[], Int[np.ndarray, "b k"]]
    """Slot of each of these keys, -1 = padding; most forwards do not ask."""
    replayed: "Callable[[], Replayed] | None" = None
    """How a recorded forward does the same; None = it can't."""


@dataclass(frozen=True)
class Replayed:
    """An exchange whose indices are an argument."""

    fixed: Hashable
    """What it depends on besides them."""
    indices: tuple[Tensor, ...]
    bound: Callable[[Sequence[Tensor]], KeyValueExchange | None]
    """The exchange with these indices, on the layers' device."""


_numbers = itertools.count()
"""Of stores: one that is gone gives its memory to others."""


@dataclass(frozen=True)
class _Writer:
    """Stores one layer's keys and values of the fed rows that are kept."""

    store: "KVStore"
    indices: Callable[[torch.device], Sequence[Tensor]]
    """Row of the store and slot, entry and fed row of each, where a layer computes."""
    plain: bool
    """One entry, all of its rows."""
    span: slice | None
    """Slots of these where they are one stretch, which is copied in a tenth of the time; None = not
    known to be."""

    def __call__(self, layer: int, k: Tensor, v: Tensor) -> None:
        keys, values = self.store.keys[layer], self.store.values[layer]
        if self.span is not None:
            keys[:, :, self.span], values[:, :, self.span] = k, v
            return
        of, at, entry, row = self.indices(k.device)
        if self.plain:
            keys.index_copy_(2, at, k)
            values.index_copy_(2, at, v)
        else:
            keys[of, :, at] = k[entry, :, row]
            values[of, :, at] = v[entry, :, row]


@dataclass(frozen=True)
class _Reader:
    """Reads one layer's keys and values below `limit` of every entry."""

    store: "KVStore"
    limit: int
    picked: Int[Tensor, "entries"] | None
    """Row of the store of each entry; None = entry i's is row i."""
    _placed: dict[torch.device, Tensor] = field(default_factory=dict)

    def __call__(self, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = self.store.keys[layer], self.store.values[layer]
        keys, values = keys[:, :, : self.limit], values[:, :, : self.limit]
        if self.picked is None:
            return keys, values
        if keys.device not in self._placed:
            self._placed[keys.device] = sent(self.picked, keys.device)
        rows = self._placed[keys.device]
        return keys[rows], values[rows]


_Exchange = Callable[[_Reader, _Write | None, int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A layer's exchange, told how to read and write besides layer, keys and values."""


class KVStore:
    """Keys and values of up to `batch` sequences, `slots` positions each; at first every row is in
    use.

    Bookkeeping lies on the host, where plans are made: an accelerator is never waited for. Each
    layer's buffers lie on its own of `layer_devices` (a model spread over several devices), by
    default on `device`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        batch: int,
        slots: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        layer_devices: Sequence[torch.device | str] | None = None,
    ):
        self._number = next(_numbers)
        shapes = [spec.kv_shape(layer) for layer in range(spec.n_layers)]
        places = [device] * spec.n_layers if layer_devices is None else layer_devices
        # A store without slots is that of a cache-free forward, made for each: no buffers.
        self._buffers = [
            torch.zeros(2, batch, heads, slots, width, dtype=dtype, device=place)
            for (heads, width), place in zip(shapes, places, strict=True)
            if slots
        ]
        self._outputs: list[Tensor] = []
        self._valid = torch.zeros((batch, slots), dtype=torch.bool)
        self._token = torch.full((batch, slots), -1, dtype=torch.int64)
        self._pending: _Pending | None = None
        """What the last forward computed for several branches, until one is adopted."""
        self._picked: np.ndarray | None = None
        """Row of each entry of a forward; None = entry i's is row i."""
        self._use(batch)

    def _use(self, rows: int) -> None:
        """Makes the first `rows` rows those in use; all public tensors are views of them."""
        self.keys: list[Tensor] = [both[0, :rows] for both in self._buffers]
        """Per layer [batch, kv_heads, slots, head_dim], rotated."""
        self.values: list[Tensor] = [both[1, :rows] for both in self._buffers]
        self.valid = self._valid[:rows]
        """Slot holds keys and values."""
        self.token = self._token[:rows]
        """Token each slot was computed from, -1 = never; differs from the canvas = stale."""
        self.outputs = [buffer[:, :rows] for buffer in self._outputs]
        """Last outputs of attention and feed-forward per layer [2, batch, slots, d_model], for
        forwards that recompute some rows only; made when the first of them comes."""

    @property
    def slots(self) -> int:
        return self.valid.shape[1]

    def invalidate(self, mask: Bool[Tensor, "batch #slots"]) -> None:
        self.valid &= ~mask

    def empty(self) -> None:
        """Takes every row out of use."""
        self._use(0)

    def append(self) -> None:
        """Takes one more row into use, for a new sequence."""
        assert len(self.valid) < len(self._valid), "more sequences than the store has rows"
        self._use(len(self.valid) + 1)
        self.hand_on(len(self.valid) - 1)

    def hand_on(self, row: int) -> None:
        """Empties a row for the next sequence."""
        self.valid[row] = False
        self.token[row] = -1

    @torch.inference_mode()
    def keep(self, rows: list[int]) -> None:
        """Makes the sequences in `rows` the first ones; only those that change their place are
        copied, one layer at a time."""
        moved = [(to, source) for to, source in enumerate(rows) if to != source]
        if moved:
            to, source = (list(side) for side in zip(*moved, strict=True))
            for buffer in (*self._buffers, *self._outputs):
                buffer[:, to] = buffer[:, source]
            for notes in (self._valid, self._token):
                notes[to] = notes[source]
        self._use(len(rows))

    def part(self, rows: Int[np.ndarray, "part"]) -> "KVStore":
        """The sequences in `rows`, ascending, as a store of their own in the same memory, for one
        forward without branches."""
        own, first, end = copy(self), int(rows[0]), int(rows[-1]) + 1
        if end - first > len(rows):
            own._picked = rows
            return own
        own.keys = [keys[first:end] for keys in self.keys]
        own.values = [values[first:end] for values in self.values]
        own.valid, own.token = self.valid[first:end], self.token[first:end]
        return own

    def feature_store(self, d_model: int) -> list[Tensor]:
        """`outputs`, made where there are none."""
        if not self._outputs:
            shape = (2, len(self._valid), self.slots, d_model)
            self._outputs = [both.new_zeros(shape) for both in self._buffers]
            self._use(len(self.valid))
        return self.outputs

    def open(self, plan: Plan) -> "Opened":
        """How the forward of a plan, still on the host, meets the store."""
        self._pending = None
        # numpy's indexing takes a fifth of the time.
        slots = plan.slots.numpy()
        stored, limit = self._visible(plan, slots)
        # A tensor compared with a word costs more than all of this.
        chosen = plan.write if isinstance(plan.write, Tensor) else None
        if chosen is None and plan.write == "none":
            if limit:
                return self._beside(plan, stored, limit, None)
            return Opened(None, _mask(_own(plan)), plan.slots.numpy, _alone)
        entry, row, slot = plan.real
        fed = slot.size
        if chosen is not None:
            kept = chosen.numpy()[entry, row]
            entry, row, slot = entry[kept], row[kept], slot[kept]
        if len(slots) > len(self.valid):
            self._pending = _Pending(plan, (entry, row, slot))
            opened = self._beside(plan, stored, limit, self._pending.note)
            return replace(opened, replayed=None)
        of = entry if self._picked is None else self._picked[entry]
        # One sequence, all rows (the usual case): a plain copy along the slots.
        plain = len(slots) == 1 and slot.size == slots.shape[1]
        write = self._writer(plan, (of, slot, entry, row), plain)
        if limit and slot.size == fed:
            stored[entry, slot] = True
            return self._in_place(plan, stored, max(limit, int(slot.max()) + 1), write)
        return self._beside(plan, stored, limit, write)

    def adopt(self, branches: Sequence[int]) -> None:
        """Keeps the rows that the last forward computed for one branch of each sequence; nothing
        where it had no branches or keeps none."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        batch = len(self.valid)
        chosen = np.zeros(len(pending.plan.slots), dtype=bool)
        chosen[[branch * batch + row for row, branch in enumerate(branches)]] = True
        entry, row, slot = (index[chosen[pending.kept[0]]] for index in pending.kept)
        write = self._writer(pending.plan, (entry % batch, slot, entry, row), False)
        for layer, (k, v) in pending.layers.items():
            write(layer, k, v)

    def _writer(self, plan: Plan, indices: tuple[np.ndarray, ...], plain: bool) -> _Writer:
        """Writes what is `indices` (as the writer's) of a plan; noted at once."""
        of, slot, entry, row = indices
        self.valid.numpy()[of, slot] = True
        self.token.numpy()[of, slot] = plan.tokens.numpy()[entry, row]
        span = None
        if plain and slot.size:
            first, end = int(slot[0]), int(slot[0]) + slot.size
            span = slice(first, end) if (slot == np.arange(first, end)).all() else None
        return _Writer(self, cache(partial(sent_together, indices)), plain, span)

    def _beside(
        self,
        plan: Plan,
        stored: Bool[np.ndarray, "entries slots"],
        limit: int,
        write: _Write | None,
    ) -> "Opened":
        """Keys are [stored slots | fed rows]; the rows that are kept are written besides."""
        mask, (entries, rows) = _own(plan), plan.slots.shape
        if limit:
            own = np.ones((1, 1, rows), dtype=bool) if mask is None else mask
            queries = own.shape[1]
            mask = np.empty((entries, queries, limit + rows), dtype=bool)
            mask[..., :limit], mask[..., limit:] = stored[:, None, :limit], own

        def slots() -> Int[np.ndarray, "b k"]:
            return np.hstack((np.tile(np.arange(limit), (entries, 1)), plan.slots.numpy()))

        def exchange(
            read: _Reader, write: _Write | None, layer: int, k: Tensor, v: Tensor
        ) -> tuple[Tensor, Tensor]:
            seen = (k, v)
            if limit:
                old_k, old_v = read(layer)
                if len(k) != len(old_k):
                    copies = len(k) // len(old_k)
                    old_k, old_v = old_k.repeat(copies, 1, 1, 1), old_v.repeat(copies, 1, 1, 1)
                seen = (torch.cat((old_k, k), dim=2), torch.cat((old_v, v), dim=2))
            if write is not None:
                write(layer, k, v)
            return seen

        return self._opened(exchange, limit, write, _mask(mask), slots)

    def _in_place(
        self, plan: Plan, seen: Bool[np.ndarray, "entries slots"], limit: int, write: _Write
    ) -> "Opened":
        """Every fed row is kept: write first and attend to the slots themselves, so that a step
        copies its own rows only, not what is stored."""
        mask = seen[:, None, :limit]
        own = _own(plan) if isinstance(plan.within, Tensor) or plan.within != "full" else None
        if own is not None:
            entries, rows = plan.slots.shape
            # Padding is slot -1, the last column, which no key has.
            mask = np.empty((entries, rows, limit + 1), dtype=bool)
            mask[..., :limit] = seen[:, None, :limit]
            at = np.broadcast_to(plan.slots.numpy()[:, None], mask[..., :rows].shape)
            np.put_along_axis(mask, at, own, axis=2)
            mask = mask[..., :limit]

        def exchange(
            read: _Reader, write: _Write | None, layer: int, k: Tensor, v: Tensor
        ) -> tuple[Tensor, Tensor]:
            assert write is not None, "every row is kept"
            write(layer, k, v)
            return read(layer)

        return self._opened(
            exchange, limit, write, _mask(mask), lambda: np.arange(limit)[None], True
        )

    def _opened(
        self,
        exchange: _Exchange,
        limit: int,
        write: _Write | None,
        mask: Tensor | None,
        slots: Callable[[], Int[np.ndarray, "b k"]],
        in_place: bool = False,
    ) -> Opened:
        """What is told to the exchange to read and write are its indices."""
        picked = None if self._picked is None else torch.from_numpy(self._picked)
        read = _Reader(self, limit, picked)

        def replayed() -> Replayed:
            writer = write if isinstance(write, _Writer) else None
            # The store's memory, and the part of it that is in use.
            place = self._number, self.keys[0].data_ptr() if self.keys else 0, len(self.valid)
            how = limit, in_place, picked is None, writer is not None and writer.plain
            indices = [] if picked is None else [picked]
            if writer is not None:
                indices.append(torch.stack(list(writer.indices(torch.device("cpu")))))

            def bound(given: Sequence[Tensor]) -> KeyValueExchange:
                rest, reads, writes = list(given), read, write
                if picked is not None:
                    reads = replace(read, picked=rest.pop(0), _placed={})
                if writer is not None:
                    told = rest.pop(0)
                    placed = cache(lambda device: sent(told, device).unbind())
                    writes = replace(writer, indices=placed, span=None)
                return partial(exchange, reads, writes)

            return Replayed((place, how), tuple(indices), bound)

        return Opened(partial(exchange, read, write), mask, slots, replayed)

    def _visible(
        self, plan: Plan, slots: Int[np.ndarray, "entries rows"]
    ) -> tuple[Bool[np.ndarray, "entries slots"], int]:
        """Effective stored keys: visible, valid and not replaced by a fed row; and their upper
        bound."""
        valid = self.valid.numpy()
        if self._picked is not None:
            valid = valid[self._picked]
        if plan.visible is None:
            return valid, 0
        if len(slots) != len(valid):
            valid = np.tile(valid, (len(slots) // len(valid), 1))
        stored = plan.visible.numpy() & valid
        entry, _, slot = plan.real
        stored[entry, slot] = False
        (used,) = np.nonzero(stored.any(axis=0))
        return stored, int(used[-1]) + 1 if used.size else 0


def _alone() -> Replayed:
    """Without a store."""
    return Replayed("alone", (), lambda indices: None)


def _own(plan: Plan) -> Bool[np.ndarray, "b q rows"] | None:
    """Which fed rows each fed row attends to [entries or 1, rows or 1, rows]; None = all."""
    seen = plan.slots.numpy()[:, None] >= 0 if plan.padded else None
    if isinstance(plan.within, Tensor):
        within = plan.within.numpy()
    elif plan.within == "causal":
        within = np.tri(plan.slots.shape[1], dtype=bool)[None]
    else:
        return seen
    return within if seen is None else within & seen


def _mask(mask: Bool[np.ndarray, "b q k"] | None) -> Tensor | None:
    """With an axis for the heads; None where nothing is hidden."""
    if mask is None or mask.all():
        return None
    return torch.from_numpy(mask)[:, None]

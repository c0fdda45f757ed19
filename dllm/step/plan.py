"""What a step asks for (`Request`) and what one forward receives (`Plan`).

A sampler states which positions it wants predicted; a cache policy turns that into forwards over
explicit rows. The split keeps samplers free of caches and caches free of samplers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.step.transfer import sent


Need = Literal[
    "twins",
    "reference",
    "fresh_logits",
    "opening_logits",
    "block_logits",
    "ahead_logits",
    "all_logits",
    "hypotheses",
    "guidance",
]
"""What a rule may ask of the engine.

`fresh_logits`: every prediction is computed from the whole current canvas. Of the positions that a
rule asks for, every step predicts `all_logits`: each one, `block_logits`: those of the block,
decided ones included, `ahead_logits`: those of the block that are masked and those behind it;
`opening_logits`: the first step of a block predicts each one. `hypotheses`: alternative canvases
that differ in the block's masks; `guidance`: in the prompt."""


MODEL = "model"
"""Name of the model whose canvas is decoded; a session may hold others beside it."""


class ForwardKind(StrEnum):
    """Why a forward is made; NFE is counted per kind."""

    PREFILL = "prefill"
    REFRESH = "refresh"
    STEP = "step"
    COMMIT = "commit"


@dataclass(frozen=True)
class Request:
    """What a sampler needs computed for its next decision."""

    positions: Int[np.ndarray, "batch rows"]
    """Absolute positions whose prediction is wanted, ascending; -1 = padding."""
    branches: Int[np.ndarray, "batch branches canvas"] | None = None
    """Canvases that are predicted in one call, at the same positions, in place of the sequence's
    own (which may be one of them); all -1 = this sequence has fewer. M of them cost M canvases. One
    is adopted (`Decision.adopt`) with the keys and values that were computed for it."""
    droppable: bool = False
    """The last branches may be left out where memory is short (drafts, not guidance)."""
    model: str = MODEL
    """Which of the session's models predicts (a draft model, a verifier)."""
    decides: bool = True
    """The step's decision follows. Otherwise the prediction is observed only, and the sampler plans
    again in the same step: a draft by one model, then its verification by another."""
    conditioning: Float[Tensor, "batch rows vocab"] | None = None
    """Logits of an earlier step at these positions that the model is conditioned on
    (self-conditioning); NaN where there are none yet."""
    twins: bool = False
    """Every position also gets a masked twin that sees all but the position itself; decided
    positions are predicted by their twin (leave one out), masked ones as always."""


@dataclass(frozen=True)
class Partial:
    """Rows that the layers recompute; of the others they keep what they last gave.

    For forwards that feed the whole canvas, row = slot.
    """

    whole: Bool[Tensor, "batch rows"]
    """Recomputed by every layer."""
    pool: Bool[Tensor, "batch rows"]
    """Of these each layer computes the values and recomputes the rows whose values changed most."""
    count: Int[Tensor, "batch"]
    """How many of the pool; 0 = the pool is left alone."""
    whole_first_layer: bool
    """The first layer recomputes every row."""
    chosen: list[Bool[Tensor, "batch rows"]] = field(default_factory=list)
    """The forward's answer: what each layer recomputed."""


@dataclass
class Taps:
    """What a policy wants back from its forward besides the prediction; the predictor fills it."""

    confidence_of: Int[Tensor, "batch wanted"] | None = None
    """Slots whose highest softmax probability is wanted, -1 = padding."""
    confidence: Float[Tensor, "batch wanted"] | None = None
    """The answer; 0 where the row was not computed."""
    rollout: bool = False
    """Whether the attention rollout is wanted."""
    influence: Float[Tensor, "batch slots"] | None = None
    """The answer: column sums of the rollout, how much each slot went into all rows."""


@dataclass(frozen=True)
class Plan:
    """One forward: rows to compute, what they attend to, what is kept, what is predicted.

    An entry is one canvas in the call: the sequence's own, or `entries = batch * branches`: the
    first branch of each sequence, then the second of each, and so on.
    """

    kind: ForwardKind | tuple[ForwardKind, ...]
    """A tuple where the sequences of the batch differ."""
    tokens: Int[Tensor, "entries rows"]
    """Token ids in physical order."""
    positions: Int[Tensor, "entries rows"]
    """Rotary position of each row."""
    slots: Int[Tensor, "entries rows"]
    """Store slot of each row, unique within an entry; -1 = padding, neither attended nor
    written."""
    fed: Int[np.ndarray, "batch"]
    """Rows really computed per sequence (padding excluded, all branches): the cost."""
    padded: bool
    """Whether any slot is -1 (known on the host, so that no mask is built for nothing)."""
    visible: Bool[Tensor, "entries slots"] | None = None
    """Stored slots that may be attended, unless a fed row replaces them; None = none."""
    within: Literal["full", "causal"] | Bool[Tensor, "entries rows rows"] = "full"
    """Attention among the fed rows: all, by physical order, or explicit."""
    write: Literal["none", "all"] | Bool[Tensor, "entries rows"] = "none"
    """Rows whose keys and values stay in the store after the call; with several branches, those of
    the one that is adopted."""
    logits_for: Int[Tensor, "entries wanted"] | None = None
    """Slots whose prediction is wanted, -1 = padding; None = no prediction (prefill, commit)."""
    partial: Partial | None = None
    """Which rows the layers recompute; None = all that are fed."""
    block: Bool[Tensor, "entries rows"] | None = None
    """Rows of the block under denoising, for models that read them otherwise than decided ones."""
    conditioning: Float[Tensor, "entries wanted vocab"] | None = None
    """As in the request."""
    taps: Taps | None = None

    @cached_property
    def real(
        self,
    ) -> tuple[Int[np.ndarray, "fed"], Int[np.ndarray, "fed"], Int[np.ndarray, "fed"]]:
        """Entry, row and slot of what is no padding, in this order."""
        slots = self.slots.numpy()
        entry, row = (slots >= 0).nonzero()
        return entry, row, slots[entry, row]

    def kind_of(self, row: int) -> ForwardKind:
        return self.kind[row] if isinstance(self.kind, tuple) else self.kind

    def spans_of(self, row: int) -> list[tuple[int, int]]:
        """The fed positions of one sequence as half-open spans, ascending; those that every layer
        computes where the layers differ."""
        if self.partial is None:
            entry, _, slots = self.real
            slots = slots[entry == row]
        else:
            slots = self.slots.numpy()[row, self.partial.whole[row].cpu().numpy()]
        if slots.size and (last := int(slots.max())) - (first := int(slots.min())) < slots.size:
            return [(first, last + 1)]
        slots = np.sort(slots)
        ends = (np.diff(slots) != 1).nonzero()[0] + 1
        return [(int(run[0]), int(run[-1]) + 1) for run in np.split(slots, ends) if run.size]

    def first(self, branches: int) -> Self:
        """The same forward without the later branches of each sequence."""
        entries = branches * len(self.fed)
        tensors = {
            name: value[:entries] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        real = self.slots[:entries] >= 0
        fed = real.sum(dim=1).view(branches, -1).sum(dim=0).cpu().numpy()
        return replace(self, **tensors, fed=fed, padded=not bool(real.all()))

    def part(self, entries: Int[np.ndarray, "part"], rows: int) -> Self:
        """The plan of some entries, one per sequence, of which `rows` rows hold all that is fed."""

        def cut(tensor: Tensor, *axes: slice) -> Tensor:
            return torch.from_numpy(tensor.numpy()[(entries, *axes)])

        own = slice(rows)
        kinds = (self.kind_of(entry) for entry in entries)
        slots, within = cut(self.slots, own), self.within
        if isinstance(within, Tensor):
            within = cut(within, own, own) if len(within) > 1 else within[:, own, own]
        conditioning = self.conditioning
        if conditioning is not None:
            conditioning = conditioning[sent(torch.from_numpy(entries), conditioning.device)]
        return replace(
            self,
            kind=self.kind if isinstance(self.kind, ForwardKind) else tuple(kinds),
            tokens=cut(self.tokens, own),
            positions=cut(self.positions, own),
            slots=slots,
            fed=self.fed[entries],
            padded=bool((slots.numpy() < 0).any()),
            visible=None if self.visible is None else cut(self.visible),
            within=within,
            write=cut(self.write, own) if isinstance(self.write, Tensor) else self.write,
            logits_for=None if self.logits_for is None else cut(self.logits_for),
            block=None if self.block is None else cut(self.block, own),
            conditioning=conditioning,
        )


def pad_positions(wanted: Bool[np.ndarray, "batch canvas"]) -> Int[np.ndarray, "batch rows"]:
    """The True positions of each row, ascending, padded on the right with -1."""
    found = [row.nonzero()[0] for row in wanted]
    return found[0][None] if len(found) == 1 else ragged(found, -1)


def ragged(lists: Sequence[np.ndarray], fill: int) -> Int[np.ndarray, "entries width"]:
    """The lists as rows of one array, padded on the right."""
    out = np.full((len(lists), max(map(len, lists), default=0)), fill, dtype=np.int64)
    for row, values in zip(out, lists, strict=True):
        row[: len(values)] = values
    return out

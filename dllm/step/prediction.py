"""What a forward returns (`Prediction`) and what a sampler sees of it (`View`)."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.transfer import sent


@dataclass(frozen=True)
class Prediction:
    """Logits of the positions asked for, alignment shift already removed."""

    logits: Float[Tensor, "entries wanted vocab"]
    """Model dtype; row r predicts `Plan.logits_for[:, r]`; NaN where not valid."""
    valid: Bool[Tensor, "entries wanted"] | None
    """False where the needed row was not computed (or padding); None = all valid."""


@dataclass(frozen=True)
class View:
    """One step as a sampler sees it: read-only, repeatable.

    Rows are the positions of the sampler's `Request`; a row is a candidate if it is masked, its
    logits are fresh and no constraint vetoed it.
    """

    canvas: Canvas
    positions: Int[Tensor, "batch rows"]
    logits: Float[Tensor, "batch rows vocab"]
    candidates: Bool[Tensor, "batch rows"]
    branches: Int[Tensor, "batch branches canvas"] | None = None
    """Tokens of the request's branches; all -1 = this sequence has fewer."""
    branch_logits: Float[Tensor, "batch branches rows vocab"] | None = None
    """Their logits; `logits` are those of the first."""
    stale: Bool[Tensor, "batch rows"] | None = None
    """Rows whose logits could not be computed in this step (and padding); None = none."""
    unrefused: Float[Tensor, "batch rows vocab"] | None = None
    """Logits with the tokens that a constraint has refused, where confidences are to be read from
    them; None = from `logits`."""

    @cached_property
    def fresh(self) -> Bool[Tensor, "batch rows"]:
        """Rows with logits of this step: no padding, and computed by its forward."""
        own = self.positions >= 0
        return own if self.stale is None else own & ~self.stale

    @property
    def device(self) -> torch.device:
        return self.logits.device

    @cached_property
    def top(self) -> tuple[Tensor, Tensor]:
        """Largest logit and its token, each [batch, rows]; the lowest id wins exact ties."""
        return scores.highest(self.logits)

    def summary(self, dtype: scores.ConfDtype) -> scores.Summary:
        """Several scores of one pass over the logits, however often they are asked for."""
        if dtype not in self._summaries:
            self._summaries[dtype] = scores.summary(self.logits, dtype)
        return self._summaries[dtype]

    @cached_property
    def _summaries(self) -> dict[scores.ConfDtype, scores.Summary]:
        return {}

    @cached_property
    def tokens(self) -> Int[Tensor, "batch rows"]:
        """Current tokens at the rows; padding reads position 0."""
        return self.canvas.tensor(self.device).gather(1, self.positions.clamp(min=0))

    @cached_property
    def given(self) -> Bool[Tensor, "batch rows"] | None:
        """Rows of the answer that were no masks at the start: no decision changes them; None = all
        were."""
        given = self.canvas.given()
        if given is None:
            return None
        given = sent(torch.from_numpy(given), self.device)
        return given.gather(1, self.positions.clamp(min=0)) & (self.positions >= 0)

    @cached_property
    def decided(self) -> Bool[Tensor, "batch rows"]:
        """Generated and committed rows, never prompt, never given, never padding."""
        start = self.column(self.canvas.prompt_length)
        decided = (self.positions >= start) & (self.tokens != self.canvas.mask_id)
        return decided if self.given is None else decided & ~self.given

    def column(self, values: np.ndarray) -> Tensor:
        """A per-sequence host array as a [batch, 1] tensor on the view's device."""
        return sent(torch.from_numpy(values), self.device)[:, None]

    def on_canvas(
        self, rows: Shaped[Tensor, "batch rows"], canvas: Shaped[Tensor, "batch canvas"]
    ) -> Shaped[Tensor, "batch canvas"]:
        """A copy of `canvas` with the rows' values at their positions."""
        wide = F.pad(canvas, (0, 1))
        # Padding rows write to the extra last column.
        index = self.positions.where(self.positions >= 0, canvas.shape[1])
        return wide.scatter(1, index, rows.to(canvas.dtype))[:, :-1]

    def uniform(self) -> Float[Tensor, "batch rows"]:
        """U[0, 1) per row in float64, from each sequence's own generator."""
        drawn = torch.zeros(self.positions.shape, dtype=torch.float64, device=self.device)
        for row, generator in enumerate(self.canvas.generators):
            # Only the sequence's own rows are drawn: padding would tie its stream to the batch.
            own = self.positions[row] >= 0
            drawn[row, own] = torch.rand(
                int(own.sum()), generator=generator, dtype=torch.float64, device=self.device
            )
        return drawn

    def with_logits(self, logits: Tensor) -> Self:
        return replace(self, logits=logits)

    def before(self, ends: np.ndarray) -> Self:
        """The same view with candidates before `ends` [batch] only."""
        return replace(self, candidates=self.candidates & (self.positions < self.column(ends)))

    def take(self, row: int) -> Self:
        """One sequence as a batch of its own; its logits are not copied."""
        tensors = {
            name: value[row : row + 1]
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name in self.__dataclass_fields__
        }
        return replace(self, **tensors, canvas=self.canvas.take(row))

    def veto(self, vetoed: Bool[Tensor, "batch rows vocab"], renormalise: bool = True) -> Self:
        """The same view without the vetoed (position, token) pairs; a row left without any token is
        no candidate any more. Without `renormalise`, confidences stay as they were."""
        logits = self.logits.masked_fill(vetoed, -torch.inf)
        alive = logits.amax(dim=-1) > -torch.inf
        scored = self.unrefused
        if renormalise:
            scored = None if scored is None else scored.masked_fill(vetoed, -torch.inf)
        elif scored is None:
            scored = self.logits
        return replace(self, logits=logits, candidates=self.candidates & alive, unrefused=scored)

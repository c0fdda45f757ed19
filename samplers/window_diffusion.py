"""Window-Diffusion (arXiv 2601.20332): decide among the first masks only, around any base rule.

Rule: between the refreshes of a phase the candidates of `base` are the leftmost `active` masks; the
first step of a phase (a refresh) takes all masks (LLaDA) or commits the first mask unconditionally
and nothing else (Dream, whose shifted logits can't predict it from the following, cached steps).
Without `slide` the window stays where the refresh found it. `early_stop` commits one token per step
and cuts the answer behind the first end token after any step but a refresh; what is left is filled
by refreshes.

Goes with cache=window (LLaDA) or cache=window_dream; the phases of both must have the same length.
The official Dream code looks for the end token in the prompt, too; here only the answer counts. An
end token at the last position of all cuts nothing, and the phase goes on as without it (there every
step is a refresh from then on).
Settings [code]: LLaDA-Base active 16, phase 32; Dream the same (demo 32 active), early stop on
GSM8K and HumanEval. gen_length = steps.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.eos import first_eos
from dllm.step.plan import Request
from dllm.step.prediction import View
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import free_commits, free_length, not_below
from samplers.parts.quota import StaticQuota
from samplers.parts.wrapping import Wrapper


@dataclass(frozen=True, kw_only=True)
class Window(Wrapper):
    active: int
    """Masks that are candidates between refreshes (>= 1)."""
    refresh_cycle: int
    """Steps of a phase (>= 1)."""
    refresh_candidates: Literal["all_masks", "first_mask"]
    slide: bool
    """The window follows the first masks instead of staying until the next refresh."""
    early_stop: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        free_commits(self.base)
        if self.early_stop:
            free_length(self.base)
            object.__setattr__(self, "decides_length", True)
        not_below("active", self.active, 1)
        not_below("refresh_cycle", self.refresh_cycle, 1)

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        if isinstance(self.base, StaticQuota):
            quota = -(-gen_length // (self.base.steps or gen_length))
            if quota > self.active:
                raise ConfigError(
                    f"sampler.active={self.active} is less than the {quota} tokens per step of "
                    f"sampler.base.steps={self.base.steps}"
                )

    def fields(self) -> tuple[StateField, ...]:
        return (
            *super().fields(),
            StateField("window", ("canvas",), torch.bool),
            StateField("window_end", dtype=torch.int64),
        )

    def refreshes(self, canvas: Canvas) -> Bool[np.ndarray, "batch"]:
        """Sequences of which this step begins a phase; a cut answer has no other steps."""
        asked = np.array([prompt.gen_length for prompt in canvas.prompts])
        cut = canvas.length < canvas.prompt_length + asked
        return (canvas.step % self.refresh_cycle == 0) | cut

    def phase(self) -> int:
        return self.refresh_cycle

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        return super().plan(canvas, self._window(canvas, eligible, state)[0], state)

    def _window(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> tuple[Bool[np.ndarray, "batch canvas"], Int[np.ndarray, "batch"]]:
        """The candidates of this step, and where the window between refreshes ends."""
        refresh = self.refreshes(canvas)[:, None]
        index, rank = np.arange(canvas.capacity), eligible.cumsum(axis=1)
        beyond = eligible & (rank == self.active + 1)
        end = np.where(beyond.any(axis=1), beyond.argmax(axis=1), canvas.length)
        if not self.slide:
            end = np.where(refresh[:, 0], end, state["window_end"].cpu().numpy())
        opening = eligible & (rank == 1) if self.refresh_candidates == "first_mask" else eligible
        return np.where(refresh, opening, eligible & (index < end[:, None])), end

    def narrowed(self, view: View, state: SamplerState) -> View:
        """The view whose candidates lie in the window (a base may ask for more rows)."""
        inside = state["window"].gather(1, view.positions.clamp(min=0))
        return replace(view, candidates=view.candidates & inside)

    def observe(self, view: View, state: SamplerState) -> None:
        eligible = self.region.eligible(view.canvas)
        window, end = self._window(view.canvas, eligible, state)
        state["window"] = torch.from_numpy(window).to(view.device)
        state["window_end"] = torch.from_numpy(end).to(view.device)
        super().observe(self.narrowed(view, state), state)

    def select(self, view: View, state: SamplerState) -> Decision:
        view = self.narrowed(view, state)
        decision = super().select(view, state)
        refresh = view.column(self.refreshes(view.canvas))
        commit = decision.commit
        if self.early_stop:
            commit = scores.best(decision.score, view.candidates)
        if self.refresh_candidates == "first_mask":
            commit = view.candidates.where(refresh, commit)
        decision = replace(decision, commit=commit)
        if not self.early_stop:
            return decision
        return replace(decision, length=self._length(view, decision, refresh[:, 0]))

    def _length(self, view: View, decision: Decision, refresh: Bool[Tensor, "batch"]) -> Tensor:
        """Where each sequence ends after this decision."""
        canvas = view.canvas
        tokens = canvas.tokens.copy()
        rows, columns = decision.commit.nonzero(as_tuple=True)
        at = view.positions[rows, columns].cpu().numpy()
        tokens[rows.cpu().numpy(), at] = decision.tokens[rows, columns].cpu().numpy()
        length = canvas.length.copy()
        for row in (~refresh).nonzero().flatten().tolist():
            start = int(canvas.prompt_length[row])
            end = first_eos(tokens[row, start : length[row]], canvas.ends(row))
            if end is not None:
                length[row] = start + end + 1
        return torch.from_numpy(length).to(view.device)

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        return canvas.masked_in_block(row) == 0 or super().block_done(canvas, row, state)

"""WeDLM streaming decoding (arXiv 2512.22737) for causal diffusion models.

Rule: in a window of masks behind the committed prefix fill every mask whose adjusted entropy H +
position_penalty * d is below entropy_threshold (strict; d = distance to the first mask, natural
log, no temperature, no filter); none below, or no threshold: the smallest. What is filled counts as
committed by the next forward, which reads the leading filled run as input; it ends the answer if
the run holds an end token or a stop sequence (the answer is cut behind it) or reaches gen_length.
Filled tokens behind a hole are never changed.

Engine: the window is refilled before the forward, which feeds up to 2 windows (`refill:
before_forward`); the paper refills after the commit and feeds exactly one. Filled positions may lie
beyond gen_length and are cut. Settings [code]: engine 16 / 0.4 / 0.02, temperature 0.2; demo 0.6;
the paper's quality tables: no threshold, window 6, penalty 0.1, temperature 0.1, gen_length 512;
recommended threshold 0.3 to 0.6. Its evaluation script also stops at "Question" and "Problem" as
the tokenizer encodes them alone (`stop_sequences`). Needs a causal model and cache=causal
(cache=none: same tokens, all rows fed again). Entropy in float32; `conf_dtype: model` is the
official engine's. Its sampling filters, then tempers: sampler/proposer=filtered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step import scores
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.decision import Decision
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import in_vocabulary, not_below
from samplers.parts.streaming import StreamingWindow, first_masks


@dataclass(frozen=True, kw_only=True)
class WeDLM(Sampler):
    region: StreamingWindow
    entropy_threshold: float | None
    """Adjusted entropy in nats below which a mask is filled (> 0); null = one token per step."""
    position_penalty: float
    """Nats added per position of distance to the first mask (>= 0)."""
    stop_sequences: list[list[int]]
    """Token sequences that end the answer besides the end tokens."""
    refill: Literal["before_forward", "after_commit"]

    # Fills at least one mask per forward by itself; the forward that ends the answer fills none.
    may_commit_nothing: ClassVar[bool] = True
    decides_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        not_below("position_penalty", self.position_penalty, 0)
        if self.entropy_threshold is not None and not self.entropy_threshold > 0:
            raise ConfigError(
                f"sampler.entropy_threshold={self.entropy_threshold} must be > 0 (null = one token "
                "per step)"
            )
        if not all(self.stop_sequences):
            raise ConfigError("sampler.stop_sequences holds an empty sequence")

    def check_model(self, spec: ModelSpec) -> None:
        if spec.attention != "causal":
            raise ConfigError(
                f"sampler=WeDLM needs a causal model; the model's attention is {spec.attention}"
            )
        for stop in self.stop_sequences:
            in_vocabulary("stop_sequences", stop, spec)

    def fields(self) -> tuple[StateField, ...]:
        return (*super().fields(), StateField("committed", dtype=torch.int64))

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        # The run that reaches gen_length may end a window behind it, and one more is fed then.
        kept = len(prompt.tokens) + prompt.gen_length
        length = max(kept, min(kept + 2 * self.region.window - 1, spec.max_positions))
        return Layout(length, length, kept, spec.block_size or 0)

    def max_steps(self, positions: int) -> int:
        # A forward fills or (refilled after the commit) at least commits.
        return 2 * (positions + 2 * self.region.window)

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        if self.refill == "after_commit":
            committed = np.maximum(state["committed"].cpu().numpy(), canvas.prompt_length)
            end = committed + self.region.window
            eligible = eligible & (np.arange(canvas.capacity) < end[:, None])
        return Request(pad_positions(eligible))

    def observe(self, view: View, state: SamplerState) -> None:
        super().observe(view, state)
        state["committed"] = view.column(first_masks(view.canvas))[:, 0]

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        distance = view.positions - view.column(first_masks(view.canvas))
        entropy = scores.entropy(view.logits, self.conf_dtype)
        return -(entropy + self.position_penalty * distance)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        below = self.below(score, view)
        return below | (scores.best(score, view.candidates) & ~below.any(dim=1, keepdim=True))

    def below(self, score: Float[Tensor, "batch rows"], view: View) -> Bool[Tensor, "batch rows"]:
        if self.entropy_threshold is None:
            return torch.zeros_like(view.candidates)
        return view.candidates & (-score < self.entropy_threshold)

    def marks(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Mapping[str, Bool[Tensor, "batch rows"]]:
        if self.entropy_threshold is None:
            return {}
        none_below = ~self.below(score, view).any(dim=1, keepdim=True)
        return {"fallback": scores.best(score, view.candidates) & none_below}

    def select(self, view: View, state: SamplerState) -> Decision:
        canvas = view.canvas
        ends = [self.end(canvas, row, int(m)) for row, m in enumerate(first_masks(canvas))]
        stop = torch.tensor([end is not None for end in ends], device=view.device)
        length = [int(canvas.length[row]) if end is None else end for row, end in enumerate(ends)]
        open_rows = view.candidates & ~stop[:, None]
        decision = super().select(replace(view, candidates=open_rows), state)
        return replace(decision, stop=stop, length=torch.tensor(length, device=view.device))

    def end(self, canvas: Canvas, row: int, run: int) -> int | None:
        """Where the committed stream [prompt, run) ends the answer; None = it goes on."""
        start = int(canvas.prompt_length[row])
        tokens = canvas.tokens[row, start:run].tolist()
        for count in range(1, len(tokens) + 1):
            if (
                tokens[count - 1] in canvas.ends(row)
                or any(tokens[:count][-len(stop) :] == stop for stop in self.stop_sequences)
                or count >= canvas.prompts[row].gen_length
            ):
                return start + count
        return None

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        # What was filled last has yet to be read by a forward.
        return False

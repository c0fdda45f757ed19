"""A sampler around another one: adds a stage, a stop or a check and leaves the rest to its base.

Every hook goes to `base`; a subclass overrides those in which it differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.step import scores
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.decision import Decision, HostDecision
from dllm.step.outcome import Outcome
from dllm.step.plan import Request
from dllm.step.prediction import View
from dllm.step.sampler import LogitsTransform, Proposer, Region, Sampler
from dllm.step.state import SamplerState, StateField


@dataclass(frozen=True, kw_only=True)
class Wrapper(Sampler):
    """Region, proposer and precision are those of `base`."""

    base: Sampler
    region: Region = field(init=False)
    proposer: Proposer = field(init=False)
    conf_dtype: scores.ConfDtype = field(init=False)
    logits_transform: LogitsTransform | None = field(init=False)

    def __post_init__(self) -> None:
        for name in ("region", "proposer", "conf_dtype", "logits_transform"):
            object.__setattr__(self, name, getattr(self.base, name))
        # Declared on classes; here they follow the sampler inside.
        for name in ("needs", "batch_one", "may_commit_nothing", "fresh_draws"):
            object.__setattr__(self, name, getattr(self.base, name))

    def fields(self) -> tuple[StateField, ...]:
        return self.base.fields()

    def validate(self, gen_length: int) -> None:
        self.base.validate(gen_length)

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        return replace(self, base=self.base.with_tokenizer(tokenizer))

    def control(self) -> tuple[str, Mapping[str, float]] | None:
        return self.base.control()

    def check_model(self, spec: ModelSpec) -> None:
        self.base.check_model(spec)

    def prepare(self, prompt: Prompt) -> Prompt:
        return self.base.prepare(prompt)

    def next_phase(self, prompt: Prompt, outcome: Outcome, spec: ModelSpec) -> Prompt | Outcome:
        return self.base.next_phase(prompt, outcome, spec)

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        return self.base.layout(prompt, spec)

    def max_steps(self, gen_length: int) -> int | None:
        return self.base.max_steps(gen_length)

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        return self.base.plan(canvas, eligible, state)

    def refine(self, view: View, state: SamplerState) -> np.ndarray | None:
        return self.base.refine(view, state)

    def observe(self, view: View, state: SamplerState) -> None:
        self.base.observe(view, state)

    def transform(self, view: View, state: SamplerState) -> View:
        return self.base.transform(view, state)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        return self.base.score(view, tokens)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        return self.base.choose(score, view, state)

    def select(self, view: View, state: SamplerState) -> Decision:
        return self.base.select(view, state)

    def committed(self, canvas: Canvas, decision: HostDecision, state: SamplerState) -> None:
        self.base.committed(canvas, decision, state)

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        return self.base.block_done(canvas, row, state)

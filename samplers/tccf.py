"""TCCF, think coarse, critic fine (TDAR, arXiv 2602.09555): a second pass with smaller blocks.

Rule: phase 1 decodes with `base` and its region up to its end token; what it wrote (without that
token) and the critic sentence are appended to the prompt, and phase 2 goes on from there with
blocks of final_block_length, on the same weights: for a block-causal model that changes the
attention, so that the whole prefix is stored anew. The answer is phase 2's; costs are those of
both.

Authors' settings: blocks of 16 then 1, budgets 30000 and 4096, `</think>` ends phase 1 only, the
sentence follows without a newline and without `</think>`, also where phase 1 ended otherwise;
appended here as token ids instead of re-tokenised text. Their single-stage and two-stage runs use
different user prompts, so that the reported gain is confounded. With blocks of 1 every
rule commits one token per step, two forwards each under cache.commit=before_next (official), one
under merged.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

import numpy as np
from jaxtyping import Bool

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.outcome import Outcome
from dllm.step.plan import Need
from dllm.step.prediction import View
from dllm.step.sampler import Region, Textual
from dllm.step.state import SamplerState
from samplers.parts.checks import in_vocabulary
from samplers.parts.wrapping import Wrapper, of_base


T = TypeVar("T")


@dataclass(frozen=True)
class TwoPhases:
    """The region of each sequence's phase."""

    first: Region
    second: Region

    @property
    def needs(self) -> frozenset[Need]:
        return self.first.needs | self.second.needs

    def validate(self, gen_length: int) -> None:
        self.first.validate(gen_length)

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        return self._of(prompt).layout(prompt, spec)

    def blocks(self, gen_length: int) -> int:
        return self.first.blocks(gen_length)

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        return self._of(canvas.prompts[row]).next_block(canvas, row)

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        thinking = self._thinking(canvas)[:, None]
        return np.where(thinking, self.first.eligible(canvas), self.second.eligible(canvas))

    def refine(self, view: View) -> np.ndarray | None:
        first, second = self.first.refine(view), self.second.refine(view)
        if first is None and second is None:
            return None
        ends = [view.canvas.block_end if end is None else end for end in (first, second)]
        return np.where(self._thinking(view.canvas), *ends)

    def _of(self, prompt: Prompt) -> Region:
        return self.second if prompt.phase else self.first

    def _thinking(self, canvas: Canvas) -> Bool[np.ndarray, "batch"]:
        return np.array([prompt.phase == 0 for prompt in canvas.prompts])


@dataclass(frozen=True, kw_only=True)
class TCCF(Wrapper):
    final_region: Region
    """Blocks of the second phase."""
    final_gen_length: int
    """Masked positions of the second phase (>= 1)."""
    critic: str
    """Sentence between the phases."""
    critic_ids: list[int] | None
    """Token ids in place of `critic`; null = those of the text."""
    think_end: str | None
    """A token that ends the first phase besides the model's end tokens; null = none."""
    think_end_id: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final_gen_length < 1:
            raise ConfigError(f"sampler.final_gen_length={self.final_gen_length} must be >= 1")
        object.__setattr__(self, "region", TwoPhases(self.base.region, self.final_region))

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        final = self._for_final(lambda: self.base.with_region(self.final_region))
        self._for_final(lambda: final.validate(self.final_gen_length))
        for length in (gen_length, self.final_gen_length):
            steps = self.base.scheduled_steps(length)
            if steps not in (None, length):
                raise ConfigError(
                    f"sampler.base.steps={steps} lays out one answer; the two phases need null"
                )

    def check_model(self, spec: ModelSpec) -> None:
        super().check_model(spec)
        in_vocabulary("critic_ids", self.critic_ids, spec)

    def _for_final(self, check: Callable[[], T]) -> T:
        """What `check` returns; its errors name the second phase's region."""
        try:
            with of_base():
                return check()
        except ConfigError as error:
            # A region does not know which of the two it is.
            text = re.sub(r"sampler\.(base\.)+region", "sampler.final_region", str(error))
            raise ConfigError(text) from None

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        ids = tokenizer.encode(self.critic) if self.critic_ids is None else self.critic_ids
        bound = replace(super().with_tokenizer(tokenizer), critic_ids=ids)
        if isinstance(self.final_region, Textual):
            textual = self.final_region
            final = self._for_final(lambda: textual.with_tokenizer(tokenizer))
            bound = replace(bound, final_region=final)
        if self.think_end is not None:
            end = tokenizer.encode(self.think_end)
            if len(end) != 1:
                raise ConfigError(
                    f"sampler.think_end={self.think_end} is no single token of the tokenizer"
                )
            object.__setattr__(bound, "think_end_id", end[0])
        return bound

    def prepare(self, prompt: Prompt) -> Prompt:
        prompt = super().prepare(prompt)
        if self.think_end_id is None:
            return prompt
        return replace(prompt, stop_ids=(*prompt.stop_ids, self.think_end_id))

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        if prompt.phase:
            return self._for_final(lambda: self.final_region.layout(prompt, spec))
        with of_base():
            layout = self.base.region.layout(prompt, spec)
        # Room for the second phase, whose blocks may reach beyond its budget.
        most = layout.length + len(self._critic()) + self.final_gen_length
        last = Prompt("", (0,) * (most - self.final_gen_length), self.final_gen_length)
        room = self._for_final(lambda: self.final_region.layout(last, spec)).capacity
        return replace(layout, capacity=max(layout.capacity, min(room, spec.max_positions)))

    def _critic(self) -> tuple[int, ...]:
        if self.critic_ids is None:
            raise ConfigError("sampler.critic needs a tokenizer; give sampler.critic_ids")
        return tuple(self.critic_ids)

    def refine(self, view: View, state: SamplerState) -> np.ndarray | None:
        return self.region.refine(view)

    def next_phase(self, prompt: Prompt, outcome: Outcome, spec: ModelSpec) -> Prompt | Outcome:
        if prompt.phase:
            short = prompt.gen_length < self.final_gen_length
            ended = any(token in spec.eos_ids for token in outcome.tokens)
            return replace(outcome, truncated=outcome.truncated or (short and not ended))
        ends = {*spec.eos_ids, *prompt.stop_ids, spec.mask_id}
        thought = outcome.tokens
        length = next((i for i, token in enumerate(thought) if token in ends), len(thought))
        tokens = (*prompt.tokens, *thought[:length], *self._critic())
        room = spec.max_positions - len(tokens)
        if room < 1:
            return replace(outcome, truncated=True)
        budget = min(self.final_gen_length, room)
        return Prompt(prompt.sample_id, tokens, budget, prompt.reference, phase=1)

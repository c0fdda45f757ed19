"""What a sampler is: replaceable parts around one rule. The engine knows this interface only.

A concrete sampler (folder `samplers/`) is a frozen dataclass of options that overrides `choose`,
and any other hook in which its method differs. It never calls the model, never writes the canvas,
never draws from a global generator; memory between steps lives in the declared `SamplerState`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.metrics.bits import Budget
from dllm.models.spec import ModelSpec, Noise
from dllm.models.tokenizers import Tokenizer
from dllm.step import scores
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.decision import Decision, HostDecision
from dllm.step.outcome import Outcome
from dllm.step.plan import Need, Request, pad_positions
from dllm.step.prediction import View
from dllm.step.state import SamplerState, StateField


class Region(Protocol):
    """Which masked positions are eligible now, and when the next block begins."""

    needs: ClassVar[frozenset[Need]]
    """What the engine must supply to find the blocks."""

    def validate(self, gen_length: int) -> None:
        """Raises `ConfigError` if this region can't schedule `gen_length` positions."""
        ...

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        """Length at entry, room to grow and attention block of a sequence.

        Raises `ConfigError` if the model can't attend to such blocks.
        """
        ...

    def blocks(self, gen_length: int) -> int:
        """Number of blocks of a schedule fixed in advance.

        Raises `ConfigError` if block ends are found while decoding.
        """
        ...

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        """Bounds of the block after the current one; None at the end of the sequence."""
        ...

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        """Masked positions that may be committed in this step."""
        ...

    def refine(self, view: View) -> np.ndarray | None:
        """New block ends [batch] once a block's first prediction is there; None = unchanged."""
        ...


@runtime_checkable
class Textual(Protocol):
    """A part with options given as text."""

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        """The part with its texts as token ids.

        Raises `ConfigError` for a text that the tokenizer has no token for.
        """
        ...


class Proposer(Protocol):
    """Draws the token that each row would get."""

    def propose(self, view: View) -> Int[Tensor, "batch rows"]: ...


class LogitsTransform(Protocol):
    """Changes the logits that tokens and scores are read from; may remember earlier steps."""

    needs: ClassVar[frozenset[Need]]

    def fields(self) -> tuple[StateField, ...]:
        """Declared memory between steps."""
        ...

    def observe(self, view: View, state: SamplerState) -> None:
        """Updates history, exactly once per forward."""
        ...

    def apply(self, view: View, state: SamplerState) -> View:
        """The view with changed logits; repeatable, changes no state."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Region + proposer + rule. Options have no defaults here: `conf/sampler/*.yaml` holds them."""

    region: Region
    proposer: Proposer
    conf_dtype: scores.ConfDtype
    """dtype of the softmax that yields the confidence."""
    logits_transform: LogitsTransform | None = None
    """Applied before tokens and scores are read; the only option that every sampler may leave
    out."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    """What the engine must supply; caches and models that cannot are refused by name."""
    noise: ClassVar[Noise] = "mask"
    """What stands on the canvases that it decodes where nothing is decided."""
    batch_one: ClassVar[bool] = False
    """The authors define the rule for one sequence at a time."""
    models: ClassVar[frozenset[str]] = frozenset()
    """Names of the models that it asks for besides the one whose canvas is decoded."""
    may_commit_nothing: ClassVar[bool] = False
    """The rule bounds its own steps (`max_steps`); the progress guard stays out."""
    decides_length: ClassVar[bool] = False
    """The rule grows or ends the answer by itself; no other part may."""
    plans_commits: ClassVar[bool] = False
    """The rule's memory says which commits come next; no other part may change them."""
    fresh_draws: ClassVar[bool] = False
    """After a veto the sequence's proposals are drawn anew, and what the constraint has accepted
    stays; otherwise they are drawn with the same random numbers."""
    one_by_one: ClassVar[bool] = False
    """A constraint is asked about one commit after the other, the best first; a veto takes back the
    token asked about and no other, and what is left is ranked anew."""

    @property
    def renormalises(self) -> bool:
        """Whether confidences are those of the remaining tokens once a constraint has refused some;
        otherwise those of all tokens."""
        return True

    def commits_ahead(self) -> bool:
        """Whether positions are committed from what was predicted with masks before them; otherwise
        only the first mask is, and what a model has verified behind it."""
        return True

    def fields(self) -> tuple[StateField, ...]:
        """Declared memory between steps; a sampler with its own adds them to these."""
        return () if self.logits_transform is None else self.logits_transform.fields()

    def with_region(self, region: Region) -> Self:
        """The same rule over other blocks."""
        return replace(self, region=region)

    def validate(self, gen_length: int) -> None:
        """Raises `ConfigError` for options that can't decode `gen_length` positions."""
        self.region.validate(gen_length)

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        """The sampler with options given as text turned into token ids; runs call it once."""
        if not isinstance(self.region, Textual):
            return self
        return replace(self, region=self.region.with_tokenizer(tokenizer))

    def control(self) -> tuple[str, Mapping[str, float]] | None:
        """A simpler sampler, with options, that every result of this one is shown beside."""
        return None

    def check_model(self, spec: ModelSpec) -> None:
        """Raises `ConfigError` if the rule can't decode with this model."""

    def check_other(self, name: str, other: ModelSpec, own: ModelSpec) -> None:
        """Raises `ConfigError` if the model `name` beside the canvas's own can't serve the rule."""

    def prepare(self, prompt: Prompt) -> Prompt:
        """The prompt as this sampler decodes it (further stop tokens)."""
        return prompt

    def next_phase(self, prompt: Prompt, outcome: Outcome, spec: ModelSpec) -> Prompt | Outcome:
        """A further generation of the same sample, or the outcome as it is reported."""
        return outcome

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        """How the sequence lies on its canvas; default: as the region says."""
        return self.region.layout(prompt, spec)

    def phase(self) -> int | None:
        """Steps between two refreshes that the rule counts on its cache to make; None = it does not
        count on any."""
        return None

    def budget(self) -> Budget | None:
        """What the rule implies about the bits of a round; None = nothing."""
        return None

    def scheduled_steps(self, gen_length: int) -> int | None:
        """Decisions over which the rule spreads an answer in advance; None = as many as it
        takes."""
        return None

    def max_steps(self, positions: int) -> int | None:
        """Bound on the decisions of one sequence for rules that may commit nothing; None = the
        progress guard bounds them. `positions`: those that its canvas has room for, which may be
        more than gen_length (rounded up to whole blocks)."""
        return None

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        """Positions whose prediction this step needs; default: the eligible ones."""
        return Request(pad_positions(eligible))

    def refine(self, view: View, state: SamplerState) -> np.ndarray | None:
        """New block ends [batch] once a block's first prediction is there; default: the
        region's."""
        return self.region.refine(view)

    def observe(self, view: View, state: SamplerState) -> None:
        """Updates history, exactly once per forward; a sampler with its own calls this as well."""
        if self.logits_transform is not None:
            self.logits_transform.observe(view, state)

    def transform(self, view: View, state: SamplerState) -> View:
        """The view with the logits that tokens and scores are read from."""
        return view if self.logits_transform is None else self.logits_transform.apply(view, state)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        """Rank of each proposal, higher is better; default: its softmax probability."""
        if tokens is view.top[1]:
            return scores.top_confidence(view.logits, self.conf_dtype)
        return scores.confidence(view.logits, tokens, self.conf_dtype)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        """The rule: which candidates to commit. A sampler that has neither this nor a `select` of
        its own is refused before it decodes."""
        raise NotImplementedError

    def marks(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Mapping[str, Bool[Tensor, "batch rows"]]:
        """Named sets of rows that explain the choice, for the trace (anchors, ready rows); "flips",
        commits that are not the model's own first choice, are added to them."""
        return {}

    def select(self, view: View, state: SamplerState) -> Decision:
        """Decision for this view; repeatable, changes no state."""
        plain, view = view, self.transform(view, state)
        tokens = self.proposer.propose(view)
        scored = view
        if view.unrefused is not None:
            scored = self.transform(plain.with_logits(view.unrefused), state)
        score = self.score(scored, tokens)
        commit = self.choose(score, view, state)
        marks = self.marks(score, view, state)
        if view is not plain and plain.positions.shape[1]:
            marks = {**marks, "flips": commit & (tokens != plain.top[1])}
        return Decision(commit, tokens, score, marks=marks)

    def committed(self, canvas: Canvas, decision: HostDecision, state: SamplerState) -> None:
        """Updates history after the canvas was written, exactly once per step."""

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        """Whether the row's block is complete; default: no mask left in it."""
        return canvas.masked_in_block(row) == 0

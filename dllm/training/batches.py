"""Masked training batches, a pure function of recipe and step: nothing to store for a resume.

A row is prompt + response + EOS up to the batch's fixed length: no padding, no attention mask, one
compiled graph per length. So the generation region of a row is what its prompt leaves over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor

from dllm.config import fits
from dllm.errors import ConfigError
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.tasks.base import Sample, Split
from dllm.tasks.suite import EmbeddedSuite
from dllm.training.vocabulary import EOS, MASK, chat_prompt


MIN_NOISE = 1e-3  # LLaDA's floor of the mask probability; bounds the weight 1/t
MAX_MISFITS = 10_000  # in a row, before a canvas is declared one that no sample fills: seconds


@dataclass(frozen=True)
class Stage:
    """What is trained on until `until` (share of all steps)."""

    until: float
    lengths: Mapping[int, float]
    """Canvas length in tokens -> how often a microbatch has it."""
    max_items: int = 15
    """Longest list."""
    largest_term: int = 9
    """Of the arithmetic."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Kind -> how often it is drawn; 1 where absent."""
    min_fill: float = 0.0
    """Least share of the canvas that prompt and response take up; the rest of a row is EOS."""

    def __post_init__(self) -> None:
        if not self.lengths:
            raise ConfigError("lengths={} names no canvas length")
        for length, share in self.lengths.items():
            if type(length) is not int or length < 1 or not share >= 0:
                raise ConfigError(f"lengths.{length}={share} is no length >= 1 with a share >= 0")
        if not any(self.lengths.values()):
            raise ConfigError(f"lengths={dict(self.lengths)} gives no canvas length a share > 0")
        if not 0 < self.until <= 1:
            raise ConfigError(f"until={self.until} is outside (0, 1]")
        if not 0 <= self.min_fill < 1:
            # The end token after the response takes one place.
            raise ConfigError(f"min_fill={self.min_fill} is outside [0, 1)")
        try:
            suite = EmbeddedSuite(max_items=self.max_items, largest_term=self.largest_term)
        except ValueError as error:
            name = "largest_term" if "term" in str(error) else "max_items"
            given = f"{name}={getattr(self, name)}"
            raise ConfigError(f"{given}: {str(error).removeprefix(given).strip()}") from None
        check_weights("weights", self.weights, suite.kinds)
        if not any(self.weights.get(kind, 1.0) for kind in suite.kinds):
            raise ConfigError(f"weights={dict(self.weights)} leaves no kind to draw")


class Share(Protocol):
    @property
    def until(self) -> float: ...


def check_shares(stages: Mapping[str, Share]) -> None:
    """Raises `ConfigError` for stages that do not follow one another up to the end."""
    if not stages:
        raise ConfigError("recipe.stages={} names nothing to train on")
    before = 0.0
    for name, stage in stages.items():
        if not before < stage.until <= 1:
            raise ConfigError(
                f"recipe.stages.{name}.until={stage.until} is outside ({before:g}, 1]"
            )
        before = stage.until
    if before != 1:
        raise ConfigError(f"recipe.stages.{name}.until={before}: the last stage ends at 1")


def check_weights(option: str, weights: Mapping[str, float], kinds: Sequence[str]) -> None:
    """Raises `ConfigError` for a kind that there is not or a weight that is none."""
    for kind, weight in weights.items():
        if kind not in kinds:
            raise ConfigError(f"{option}.{kind}={weight} is no kind; there are {', '.join(kinds)}")
        if not fits(weight, float) or weight < 0:
            raise ConfigError(f"{option}.{kind}={weight} must be a number >= 0")


@dataclass(frozen=True)
class Batch:
    tokens: Tensor
    """int64 [rows, length], masked positions hold the mask token."""
    masked: Tensor
    """int64 [masks], flat indices of the masked positions."""
    targets: Tensor
    """int64 [masks], the original tokens there."""
    weights: Tensor
    """float32 [masks], 1 / (t * response length): summed over a row it has expectation 1."""
    positions: Tensor | None = None
    """int64 [rows, length], rotary positions; None = 0..length-1."""
    visible: Tensor | None = None
    """bool [length, length], what each position attends to; None = everything."""

    @property
    def rows(self) -> int:
        return self.tokens.shape[0]

    def to(self, device: torch.device) -> Batch:
        return Batch(
            tokens=self.tokens.to(device),
            masked=self.masked.to(device),
            targets=self.targets.to(device),
            weights=self.weights.to(device),
            positions=None if self.positions is None else self.positions.to(device),
            visible=None if self.visible is None else self.visible.to(device),
        )


class Objective(ABC):
    """Makes a batch of complete rows: hides tokens and says how much each prediction counts."""

    attention: ClassVar[AttentionKind] = "full"
    """Of the models that it trains: in decoding they meet what they met in training."""
    logit_shift: ClassVar[int] = 0

    @abstractmethod
    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        """`tokens` int64 [rows, length], `prompt_lengths` int64 [rows]."""

    def check(self, spec: ModelSpec) -> None:
        """Raises `ConfigError` for a model that this does not train."""
        if (spec.attention, spec.logit_shift) != (self.attention, self.logit_shift):
            kind = type(self)
            raise ConfigError(
                f"recipe.objective._target_={kind.__module__}.{kind.__name__} trains a model with "
                f"attention={self.attention} and logit_shift={self.logit_shift}; this one has "
                f"{spec.attention} and {spec.logit_shift}"
            )


def check_tokens(option: str, tokens: Sequence[int], spec: ModelSpec) -> None:
    """Raises `ConfigError` for a token id outside the model's vocabulary."""
    for token in tokens:
        if not 0 <= token < spec.vocab_size:
            raise ConfigError(
                f"{option}: {token} is outside the model's vocabulary [0, {spec.vocab_size})"
            )


class UniformNoise(Objective):
    """LLaDA's."""

    def __call__(
        self, tokens: Tensor, prompt_lengths: Tensor, mask_id: int, generator: torch.Generator
    ) -> Batch:
        return mask_responses(tokens, prompt_lengths, mask_id, generator)


class Questions(Protocol):
    """What training samples are drawn from: a generated task, or recorded answers."""

    @property
    def kinds(self) -> Sequence[str]: ...

    def draw_from(self, split: Split, kind: str, rng: Random) -> Sample: ...


class BatchSource:
    """Microbatches of about `tokens_per_micro` tokens drawn from the training split."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stages: Mapping[str, Stage],
        total_steps: int,
        micros: int,
        tokens_per_micro: int,
        seed: int,
        objective: Objective | None = None,
        questions: Questions | None = None,
    ) -> None:
        """`questions`: drawn from in place of the embedded suite.

        Raises `ConfigError` for a canvas that none of them fills.
        """
        self.objective = objective or UniformNoise()
        self.tokenizer, self.total_steps = tokenizer, total_steps
        self._names, self.stages = list(stages), list(stages.values())
        self.micros, self.tokens_per_micro, self.seed = micros, tokens_per_micro, seed
        self.mask_id, self.eos_id = _id(tokenizer, MASK), _id(tokenizer, EOS)
        self._suites = [
            questions or EmbeddedSuite(max_items=stage.max_items, largest_term=stage.largest_term)
            for stage in self.stages
        ]
        # Now, not when the stage begins, which may be hours later.
        for number, stage in enumerate(self.stages):
            for length in (length for length, share in stage.lengths.items() if share):
                self._row(number, length, Random(0))

    def stage_at(self, step: int) -> int:
        share = step / self.total_steps
        return next((i for i, s in enumerate(self.stages) if share < s.until), len(self.stages) - 1)

    def step(self, step: int) -> list[Batch]:
        """The microbatches of optimizer step `step`."""
        return [self._micro(step, i) for i in range(self.micros)]

    def _micro(self, step: int, index: int) -> Batch:
        rng = Random(f"{self.seed}/{step}/{index}")
        number = self.stage_at(step)
        lengths = self.stages[number].lengths
        (length,) = rng.choices(list(lengths), list(lengths.values()))
        rows = [self._row(number, length, rng) for _ in range(self.tokens_per_micro // length)]
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        tokens = torch.tensor([ids for ids, _ in rows])
        prompts = torch.tensor([prompt for _, prompt in rows])
        return self.objective(tokens, prompts, self.mask_id, generator)

    def _row(self, number: int, length: int, rng: Random) -> tuple[list[int], int]:
        """(ids of a whole canvas, length of the prompt) of a sample of stage `number`."""
        stage, suite = self.stages[number], self._suites[number]
        weights = [stage.weights.get(kind, 1.0) for kind in suite.kinds]
        if not any(weights):
            raise ConfigError(
                f"stages.{self._names[number]}.weights={dict(stage.weights)} leaves no kind to "
                f"draw of {', '.join(suite.kinds)}"
            )
        for _ in range(MAX_MISFITS):
            (kind,) = rng.choices(suite.kinds, weights)
            row = self.encode(suite.draw_from("train", kind, rng), length)
            if row is not None and row[2] >= stage.min_fill * length:
                return row[0], row[1]
        raise ConfigError(
            f"stages.{self._names[number]}.lengths.{length}={stage.lengths[length]}: none of "
            f"{MAX_MISFITS:,} samples fits such a canvas and fills min_fill={stage.min_fill} of "
            "it; change lengths, weights or min_fill"
        )

    def encode(self, sample: Sample, length: int) -> tuple[list[int], int, int] | None:
        """(ids of the whole canvas, length of the prompt, of all but EOS); None if no EOS fits."""
        prompt = self.tokenizer.encode(chat_prompt(sample.prompt)).ids
        answer = self.tokenizer.encode(sample.answer).ids
        ends = length - len(prompt) - len(answer)
        if ends < 1:
            return None
        return prompt + answer + [self.eos_id] * ends, len(prompt), length - ends


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ConfigError(f"the tokenizer has no token {token}")
    return found


def mask_responses(
    tokens: Tensor,
    prompt_lengths: Tensor,
    mask_id: int,
    generator: torch.Generator,
    ends: Tensor | None = None,
    *,
    suffix: bool = False,
) -> Batch:
    """LLaDA's forward process on the responses (arXiv 2502.09992, algorithm 2).

    t is one draw per row, stratified: row i of n has t uniform in [i/n, (i+1)/n), while the rows
    come in random order of kind. `tokens` int64 [rows, length], `prompt_lengths` int64 [rows];
    `ends` int64 [rows] where the responses end, None = with the row. `suffix`: instead of each
    token with probability t, a response's last ceil(t * length) tokens, whose share then is t.
    """
    rows, length = tokens.shape
    ends = torch.full_like(prompt_lengths, length) if ends is None else ends
    t = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
    t = MIN_NOISE + (1 - MIN_NOISE) * t
    index = torch.arange(length)
    response = (index >= prompt_lengths[:, None]) & (index < ends[:, None])
    if suffix:
        hidden = (t * (ends - prompt_lengths)).ceil()
        t = hidden / (ends - prompt_lengths)
        chosen = response & (index >= (ends - hidden)[:, None])
    else:
        chosen = response & (torch.rand(rows, length, generator=generator) < t[:, None])
    weights = (1 / (t * (ends - prompt_lengths)))[:, None].expand(rows, length)
    masked = chosen.flatten().nonzero().squeeze(1)
    return Batch(
        tokens=torch.where(chosen, mask_id, tokens),
        masked=masked,
        targets=tokens.flatten()[masked],
        weights=weights.flatten()[masked],
    )

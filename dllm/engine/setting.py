"""What decodes: a model, a sampler and the circumstances, checked before anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dllm.cache.policy import CachePolicy
from dllm.engine.legality import other_refusals, refusals
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Layout, Prompt
from dllm.step.constraint import BoundConstraint
from dllm.step.eos import EosPolicy
from dllm.step.plan import MODEL
from dllm.step.sampler import Sampler


class DoesNotFit(ConfigError):
    """A prompt for whose answer the model has too few positions."""


@dataclass(frozen=True)
class Served:
    """A model with the cache that plans its forwards."""

    predictor: Predictor
    cache: CachePolicy


@dataclass(frozen=True)
class Setting:
    """A model, a sampler and the circumstances under which they decode."""

    predictor: Predictor
    sampler: Sampler
    cache: CachePolicy
    eos: EosPolicy = EosPolicy.NONE
    constraint: BoundConstraint | None = None
    batch_size: int = 1
    seed: int = 0
    record: bool = False
    """Keep a trace of every sequence."""
    alternatives: int = 0
    """Most probable tokens of each predicted position that a trace keeps, with the branches; 0 =
    neither."""
    positions: int | None = None
    """Canvas positions per sequence, and no more (>= 1); None = as many as the first prompts need,
    enlarged between batches where a later one needs more."""
    others: Mapping[str, Served] = field(default_factory=dict)
    """Further models by the names that requests give them (a draft model, a verifier, which needs
    no mask token)."""

    @property
    def models(self) -> dict[str, Served]:
        """All models by name."""
        return {MODEL: Served(self.predictor, self.cache), **self.others}

    def check_parts(self) -> None:
        """Raises `ConfigError` for parts that can't decode together."""
        reasons = refusals(self.sampler, self.cache, self.predictor.spec, self.batch_size)
        reasons += other_refusals(
            self.sampler,
            {name: (one.cache, one.predictor.spec) for name, one in self.others.items()},
            self.predictor.spec,
        )
        if self.constraint is not None and self.predictor.spec.noise != "mask":
            # A reviewer checks canvases whose undecided positions hold a mask token.
            reasons.append(
                f"a constraint needs a mask token, which the {self.predictor.spec.family} model "
                "lacks; use constraint=none"
            )
        if self.eos is EosPolicy.STOP_AFTER_BLOCK and self.predictor.spec.noise != "mask":
            reasons.append(
                f"eos={self.eos} leaves masks behind an answer, which the "
                f"{self.predictor.spec.family} model has none of; use eos=fill_after_block"
            )
        if reasons:
            raise ConfigError("; ".join(reasons))

    def admit(self, prompt: Prompt) -> tuple[Prompt, Layout]:
        """The prompt as the sampler decodes it, and how it lies on its canvas.

        Raises `ConfigError` for a prompt that does not fit the model, the region or the schedule.
        """
        spec, sampler = self.predictor.spec, self.sampler
        prompt = sampler.prepare(prompt)
        for token in prompt.tokens:
            if not 0 <= token < spec.vocab_size:
                raise ConfigError(
                    f"sample {prompt.sample_id}: token id {token} of the prompt is outside the "
                    f"vocabulary [0, {spec.vocab_size})"
                )
            if token in spec.image_ids:
                raise ConfigError(
                    f"sample {prompt.sample_id}: token {token} of the prompt stands for an image; "
                    f"the {spec.family} model is read without its vision tower, text only"
                )
        if spec.mask_id in prompt.tokens:
            # Rules and caches tell what is decided from what is not by this token.
            raise ConfigError(
                f"sample {prompt.sample_id}: position {prompt.tokens.index(spec.mask_id)} of the "
                f"prompt holds the mask token {spec.mask_id}; masks are decoded behind a prompt, "
                "inside it only where dllm.generate is called with infill=True"
            )
        layout = sampler.layout(prompt, spec)
        self._admit_region(prompt, layout)
        asked = (
            f"sample {prompt.sample_id}: prompt of {len(prompt.tokens)} tokens + "
            f"gen_length={prompt.gen_length} exceeds"
        )
        if layout.length > spec.max_positions:
            raise DoesNotFit(f"{asked} the model's {spec.max_positions} positions")
        for name, other in self.others.items():
            if layout.length > other.predictor.spec.max_positions:
                raise DoesNotFit(
                    f"{asked} the {other.predictor.spec.max_positions} positions of model {name!r}"
                )
        if self.positions is not None and layout.capacity > self.positions:
            raise ConfigError(f"{asked} the {self.positions} positions of the session")
        answer = len(prompt.reference or ())
        if "reference" in sampler.needs and not 0 < answer <= prompt.gen_length:
            raise ConfigError(
                f"sample {prompt.sample_id}: {type(sampler).__name__} needs a reference answer "
                f"of 1 to gen_length={prompt.gen_length} tokens, got {answer or 'none'}"
            )
        sampler.validate(prompt.gen_length)
        if self.constraint is not None:
            self.constraint.check(prompt)
        return prompt, layout

    def _admit_region(self, prompt: Prompt, layout: Layout) -> None:
        if prompt.region is None:
            return
        where = f"sample {prompt.sample_id}: the given answer"
        if self.predictor.spec.noise != "mask":
            raise ConfigError(
                f"{where}: gaps need a mask token; the {self.predictor.spec.family} model has none"
            )
        length = layout.length - len(prompt.tokens)
        if self.sampler.decides_length:
            raise ConfigError(
                f"{where}: sampler={type(self.sampler).__name__} decides the length of the answer; "
                "gaps are filled on a canvas of one length"
            )
        if len(prompt.region) != length or layout.capacity != layout.length:
            raise ConfigError(
                f"{where} has {len(prompt.region)} positions, "
                f"sampler={type(self.sampler).__name__} lays out {length} to "
                f"{layout.capacity - len(prompt.tokens)}: gaps are filled on a canvas of one length"
            )
        if self.predictor.spec.mask_id not in prompt.region:
            raise ConfigError(f"{where} has no gap")
        if any(not 0 <= token < self.predictor.spec.vocab_size for token in prompt.region):
            raise ConfigError(f"{where} holds a token id outside the vocabulary")
        if self.eos is not EosPolicy.NONE:
            raise ConfigError(
                f"{where} ends before its gaps are filled under eos={self.eos}: use eos=none"
            )

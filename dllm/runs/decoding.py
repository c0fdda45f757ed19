"""The decoding of a run's samples, graded and kept one by one."""

import gc
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from omegaconf import DictConfig

from dllm import config as configuration
from dllm.engine.legality import misfits
from dllm.engine.loop import Decoder
from dllm.engine.sequential import one_by_one
from dllm.engine.setting import DoesNotFit
from dllm.errors import ConfigError
from dllm.metrics.definitions import SampleResult
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.grading import answer_tokens, encoded, filled_in, grade, unfit
from dllm.runs.others import served
from dllm.runs.parts import Parts
from dllm.runs.stopping import asked
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from dllm.step.sampler import Sampler
from dllm.step.trace import Trace
from dllm.tasks.base import Sample, Task


def fitting(config: DictConfig, parts: Parts, checkpoint: Checkpoint) -> Sampler:
    """The sampler with its texts as token ids.

    Raises `ConfigError` if the parts can't decode together: nobody waits for a model or a baseline
    to be told.
    """
    with configuration.full_paths(config.sampler, "sampler"):
        sampler = parts.sampler.with_tokenizer(checkpoint.tokenizer)
        length, batch_size = config.gen_length, config.batch_size
        reasons = misfits(sampler, parts.cache, checkpoint.spec, length, batch_size)
        if config.score_sequential and not config.trace:
            reasons.append("score_sequential=true writes into the traces; use trace=true")
        if config.score_sequential and sampler.models:
            reasons.append(
                "score_sequential=true predicts with the canvas's model alone; the sampler decides "
                f"by {', '.join(sorted(sampler.models))}"
            )
        if reasons:
            raise ConfigError("; ".join(reasons))
    return sampler


def decoder(
    config: DictConfig,
    parts: Parts,
    checkpoint: Checkpoint,
    others: Mapping[str, Checkpoint],
) -> Decoder:
    """What decodes; the sampler is a fitting one."""
    return loaded(outline(config, parts, checkpoint, others), checkpoint, others)


def loaded(outline: Decoder, checkpoint: Checkpoint, others: Mapping[str, Checkpoint]) -> Decoder:
    """The decoder with its models' weights."""
    beside = {name: served(other.predictor) for name, other in others.items()}
    complete = replace(outline, predictor=checkpoint.predictor, others=beside)
    gc.freeze()  # what is loaded by now stays: a collection while decoding need not walk through it
    return complete


def outline(
    config: DictConfig,
    parts: Parts,
    checkpoint: Checkpoint,
    others: Mapping[str, Checkpoint],
) -> Decoder:
    """The decoder without weights: it says what can be decoded, and decodes nothing."""
    constraint = parts.constraint
    return Decoder(
        checkpoint.outline,
        parts.sampler,
        parts.cache,
        parts.eos,
        None if constraint is None else constraint.bind(checkpoint.tokenizer, checkpoint.spec),
        config.batch_size,
        config.seed,
        record=config.trace,
        alternatives=config.alternatives or 0,
        others={name: served(other.outline) for name, other in others.items()},
    )


class Decoding:
    """What refuses a sample does so on construction, before anything is written; for that the
    decoder needs no weights (`outline`)."""

    def __init__(
        self,
        config: DictConfig,
        task: Task,
        checkpoint: Checkpoint,
        others: Mapping[str, Checkpoint],
        decoder: Decoder,
        samples: Sequence[Sample],
        references: Mapping[str, Sequence[int]],
    ):
        self.config, self.task, self.checkpoint = config, task, checkpoint
        self.others, self.decoder = others, decoder
        self.samples = {sample.id: sample for sample in samples}
        tokenizer, spec, length = checkpoint.tokenizer, checkpoint.spec, config.gen_length
        self.prompts: list[Prompt] = []
        self.unfit: dict[str, DoesNotFit] = {}
        self.lengths: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.spent: dict[str, float] = {}
        """Seconds per sample before decoding."""
        with configuration.full_paths(config.sampler, "sampler"):
            self.decoder.check_parts()
            for sample in samples:
                began = time.perf_counter()
                tokens = encoded(tokenizer, sample)
                self.spent[sample.id] = time.perf_counter() - began
                self.lengths[sample.id] = len(tokens)
                try:
                    region = filled_in(tokenizer, spec, sample, length)
                    prompt = Prompt(
                        sample.id,
                        tokens,
                        length,
                        tuple(references.get(sample.id, ())) or None,
                        schema=json.dumps(sample.meta["schema"])
                        if "schema" in sample.meta
                        else None,
                        region=region,
                    )
                    self.decoder.admit(prompt)
                    self.prompts.append(prompt)
                    self.told[sample.id] = len(answer_tokens(region or (), spec))
                except DoesNotFit as error:
                    self.unfit[sample.id] = error
        if not self.prompts:
            raise next(iter(self.unfit.values()))
        self._prompt_of = {prompt.sample_id: prompt for prompt in self.prompts}

    def results(self, samples: Sequence[str]) -> Iterator[tuple[SampleResult, Trace | None]]:
        """Each of the samples, graded, as it is finished; an end that is asked for ends them."""
        prompts = [self._prompt_of[name] for name in samples if name in self._prompt_of]
        for name in samples:
            if (error := self.unfit.get(name)) is not None:
                print(f"note: {error}: counted as not correct", file=sys.stderr, flush=True)
                yield unfit(self.samples[name], self.lengths[name]), None
        if not prompts:
            return
        # Places that no prompt would take cost memory.
        together = replace(self.decoder, batch_size=min(self.decoder.batch_size, len(prompts)))
        for checkpoint in (self.checkpoint, *self.others.values()):
            checkpoint.warm_up(prompts[0].tokens, together.batch_size)
        spec, tokenizer = self.checkpoint.spec, self.checkpoint.tokenizer
        for outcome in together.decode(prompts, asked):
            self._score_sequential(outcome)
            sample = self.samples[outcome.sample_id]
            told, spent = self.told[sample.id], self.spent[sample.id]
            result = grade(outcome, sample, self.task, tokenizer, spec, told, spent)
            yield result, outcome.trace

    def _score_sequential(self, outcome: Outcome) -> None:
        """What the answer costs token by token, into its trace."""
        config, trace = self.config, outcome.trace
        if not config.score_sequential or trace is None or outcome.earlier is not None:
            return
        prompt, layout = self.decoder.admit(self._prompt_of[outcome.sample_id])
        predictor = self.checkpoint.predictor
        trace.sequential = one_by_one(predictor, prompt, layout, trace, config.batch_size)

"""One run: decode what is missing of a task, grade it, keep it, compare it with the baseline."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dllm import config as configuration
from dllm.cache.policy import CachePolicy
from dllm.engine.legality import refusals
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.metrics.definitions import Comparison, SampleResult, Summary
from dllm.models.hub import ModelOptions, checkpoint_folder, folder_spec, open_model, open_tokenizer
from dllm.models.spec import ModelSpec
from dllm.runs.environment import describe
from dllm.runs.folder import RunFolder
from dllm.runs.grading import encoded, grade
from dllm.runs.progress import Progress
from dllm.runs.tracked import track
from dllm.step.canvas import Prompt
from dllm.step.constraint import Constraint
from dllm.step.eos import EosPolicy
from dllm.step.sampler import Sampler
from dllm.tasks.base import Sample, Task
from dllm.tracking.tracker import RunInfo, Tracker


@dataclass(frozen=True)
class Parts:
    """Everything a configuration builds, checked before any work is done."""

    model: ModelOptions
    sampler: Sampler
    cache: CachePolicy
    constraint: Constraint | None
    task: Task
    tracker: Tracker
    eos: EosPolicy


def build_parts(config: DictConfig) -> Parts:
    """Raises `ConfigError` for any option that is unknown, wrongly typed or out of range."""

    def part(name: str) -> Any:
        return configuration.build(config[name], name, config.allow_external)

    configuration.check_top_level(config)
    if config.eos not in list(EosPolicy):
        raise ConfigError(f"eos={config.eos} is not one of {', '.join(EosPolicy)}")
    parts = Parts(
        part("model"),
        part("sampler"),
        part("cache"),
        part("constraint"),
        part("task"),
        part("tracker"),
        EosPolicy(config.eos),
    )
    parts.sampler.validate(config.gen_length)
    return parts


def baseline_of(config: DictConfig, spec: ModelSpec) -> DictConfig:
    """The same run with one token per step, most confident first: no cache, no early end; same
    checkpoint, samples, gen_length, batch and blocks."""
    base = config.copy()
    default = configuration.compose(["sampler=low_confidence", "cache=none", "constraint=none"])
    for name in ("sampler", "cache", "constraint", "eos"):
        base[name] = default[name]
    base.sampler.region = _baseline_region(config, spec)
    return base


def _baseline_region(config: DictConfig, spec: ModelSpec) -> DictConfig:
    """Blocks of the run's length: those that it has where its own end elsewhere (adaptive blocks
    without a delimiter), one block where it has none (a window, an inferred length). A
    block-causal model's blocks lie where it was trained to have them, whatever the run does."""

    def region(name: str) -> DictConfig:
        options = ["sampler=low_confidence", f"sampler/region={name}"]
        return configuration.compose(options).sampler.region

    ours = _innermost(config.sampler).region
    if spec.attention == "block_causal":
        aligned = region("aligned")
        return ours if ours._target_ == aligned._target_ else aligned
    length = ours.get("block_length", ours.get("default_block_length"))
    even = length is None or config.gen_length % length == 0
    blocks = region("fixed" if even else "uneven")
    blocks.block_length = length
    return blocks


def control_of(config: DictConfig, name: str, sampler: Sampler) -> tuple[DictConfig, str] | None:
    """The same run with the simpler rule that the sampler is to be compared with, and that run's
    name; None if it asks for none. Samplers around the rule stay."""
    wanted = sampler.control()
    if wanted is None:
        return None
    choice, options = wanted
    rule = configuration.compose([f"sampler={choice}"]).sampler
    rule.region = _innermost(config.sampler).region
    for option, value in options.items():
        rule[option] = value
    control = config.copy()
    if "base" not in control.sampler:
        control.sampler = rule
        return control, choice
    around = control.sampler
    while "base" in around.base:
        around = around.base
    around.base = rule
    return control, name


def _innermost(sampler: DictConfig) -> DictConfig:
    """The sampler inside all that wrap another one."""
    return _innermost(sampler.base) if "base" in sampler else sampler


def _baseline_answers(
    config: DictConfig, sampler: Sampler, baseline: dict[str, Any] | None
) -> dict[str, list[int]]:
    """The model's own answers by sample, for samplers that need a reference."""
    if "reference" not in sampler.needs:
        return {}
    if baseline is None:
        raise ConfigError(
            "baseline=false: the sampler needs the baseline's answers as references; "
            "use baseline=true"
        )
    base = RunFolder(Path(config.output) / "low_confidence" / baseline["fingerprint"])
    return {result.id: result.tokens for result in base.samples()}


def execute(
    config: DictConfig, sampler_name: str, group: str | None = None
) -> tuple[Path, dict[str, Any]]:
    """Runs (or completes) one configuration and, if asked for, its baseline.

    Returns the run folder and the contents of its summary.json. Raises `ConfigError` before any
    work and `RunError` during it.
    """
    configuration.check_complete(config)
    parts = build_parts(config)
    spec = _checked_spec(config, parts)
    baseline = None
    if config.baseline:
        base = baseline_of(config, spec)
        if configuration.fingerprint(base) != configuration.fingerprint(config):
            quiet = base.copy()
            quiet.tracker = configuration.compose(["tracker=none"]).tracker
            _, baseline = _run(quiet, "low_confidence", None, None)
    control = control_of(config, sampler_name, parts.sampler)
    if control is None:
        return _run(config, sampler_name, group, baseline)
    _, beside = _run(*control, group, baseline)
    return _run(config, sampler_name, group, baseline, beside)


def _checked_spec(config: DictConfig, parts: Parts) -> ModelSpec:
    """The model's architecture.

    Raises `ConfigError` if it can't be decoded like this: the user need not wait for the model or
    the baseline to be told.
    """
    folder = checkpoint_folder(parts.model)
    spec = folder_spec(parts.model, folder)
    sampler = parts.sampler.with_tokenizer(open_tokenizer(parts.model, spec, folder))
    reasons = refusals(sampler, parts.cache, spec, config.batch_size)
    if reasons:
        raise ConfigError("; ".join(reasons))
    sampler.layout(Prompt("", (spec.pad_id,), config.gen_length), spec)
    return spec


def _run(
    config: DictConfig,
    name: str,
    group: str | None,
    baseline: dict[str, Any] | None,
    control: dict[str, Any] | None = None,
) -> tuple[Path, dict[str, Any]]:
    parts = build_parts(config)
    samples = _samples(parts.task, config)
    checkpoint = checkpoint_folder(parts.model)
    folder_spec(parts.model, checkpoint)
    mark = configuration.fingerprint(config)
    folder = RunFolder(Path(config.output) / name / mark)
    label = _label(config, name)
    with folder.locked():
        folder.drop_unfinished()
        done = {result.id for result in folder.samples()}
        missing = [sample for sample in samples if sample.id not in done]
        answers = _baseline_answers(config, parts.sampler, baseline)
        decoding = _Decoding(config, parts, missing, answers) if missing else None
        changed = folder.write_environment(describe(checkpoint, config.model.device))
        if done and missing and changed:
            note = f"warning: {folder.path} goes on with changed {', '.join(changed)}"
            print(note, file=sys.stderr)
        folder.write_config(OmegaConf.to_yaml(config, resolve=True))
        info = RunInfo(
            folder.path,
            mark,
            label,
            OmegaConf.to_container(config, resolve=True),  # type: ignore[arg-type]
            group,
            (name, str(config.model.name)),
        )
        try:
            parts.tracker.start(info)
            if decoding is not None:
                decoding.run(folder, label)
            order = {sample.id: index for index, sample in enumerate(samples)}
            results = sorted(folder.samples(), key=lambda result: order[result.id])
            summary = _summary(config, label, mark, results, baseline)
            if control is not None:
                summary["control"] = control
            folder.write_summary(summary)
            track(parts.tracker, folder, results, summary)
        finally:
            parts.tracker.finish()
    return folder.path, summary


def _label(config: DictConfig, name: str) -> str:
    """Sampler with the options in which it differs from its default, samplers inside it, and the
    parts around it."""
    default = configuration.compose([f"sampler={name}"])
    found = _different(config.sampler, default.sampler)
    if config.cache != default.cache:
        found.append(f"cache={configuration.option_of('cache', config.cache)[0]}")
    if config.eos != default.eos:
        found.append(f"eos={config.eos}")
    return f"{name} ({', '.join(found)})" if found else name


def _different(sampler: DictConfig, default: DictConfig) -> list[str]:
    found = configuration.differences(_alone(sampler), _alone(default))
    if "base" not in sampler:
        return found
    inside, ours = sampler.base, default.base
    name = inside._target_.split(".")[-2]
    if inside._target_ == ours._target_:
        return found + [f"base.{text}" for text in _different(inside, ours)]
    try:
        ours = configuration.compose([f"sampler={name}"]).sampler
    except ConfigError:
        return [*found, f"base={name}"]
    return [*found, f"base={name}", *(f"base.{text}" for text in _different(inside, ours))]


def _alone(sampler: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(sampler, [str(name) for name in sampler if name != "base"])


def _samples(task: Task, config: DictConfig) -> list[Sample]:
    try:
        return task.samples("test", config.limit, config.seed)
    except ValueError as error:
        raise ConfigError(f"limit={config.limit}: {error}") from None


class _Decoding:
    """The decoding of the samples that are missing; what refuses them does so on construction."""

    def __init__(
        self,
        config: DictConfig,
        parts: Parts,
        samples: Sequence[Sample],
        answers: Mapping[str, Sequence[int]],
    ):
        self.task, self.progress = parts.task, config.progress
        self.samples = {sample.id: sample for sample in samples}
        model, self.tokenizer = open_model(parts.model)
        constraint = parts.constraint
        self.decoder = Decoder(
            Predictor(model),
            parts.sampler.with_tokenizer(self.tokenizer),
            parts.cache,
            parts.eos,
            None if constraint is None else constraint.bind(self.tokenizer, model.spec),
            config.batch_size,
            config.seed,
            record=config.trace,
        )
        self.prompts = [
            Prompt(
                sample.id,
                encoded(self.tokenizer, sample),
                config.gen_length,
                tuple(answers.get(sample.id, ())) or None,
            )
            for sample in samples
        ]
        self.decoder.check(self.prompts)

    def run(self, folder: RunFolder, label: str) -> None:
        """Decodes and grades; each sample is on disk before the next one is reported."""
        # The first decode pays for thread pools and kernel selection; its time would be charged to
        # one sample.
        list(self.decoder.decode(self.prompts[:1]))
        spec = self.decoder.predictor.spec
        with Progress(label, len(self.samples)) if self.progress else nullcontext() as shown:
            for outcome in self.decoder.decode(self.prompts):
                sample = self.samples[outcome.sample_id]
                result = grade(outcome, sample, self.task, self.tokenizer, spec)
                folder.append(result, outcome.trace)
                if shown is not None:
                    shown.add(result)


def _summary(
    config: DictConfig,
    label: str,
    mark: str,
    results: Sequence[SampleResult],
    baseline: dict[str, Any] | None,
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "label": label,
        "fingerprint": mark,
        "model": config.model.name,
        "task": _task_name(results),
        "metrics": asdict(Summary.of(results)),
    }
    if baseline is not None:
        base = RunFolder(Path(config.output) / "low_confidence" / baseline["fingerprint"])
        summary["versus_baseline"] = asdict(Comparison.of(results, base.samples()))
        summary["baseline"] = {k: v for k, v in baseline.items() if k != "baseline"}
    return summary


def _task_name(results: Sequence[SampleResult]) -> str:
    kinds = sorted({result.task for result in results})
    return kinds[0] if len(kinds) == 1 else f"{len(kinds)} kinds"

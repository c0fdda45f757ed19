"""How a recorded sample would have ended had other options held from some forward on.

The recorded forwards are made again by the recorded rule, so that everything that it remembers
(credit, streaks, a cache's keys and values, the state of the random numbers) is what it was; what
they write is compared with the trace, to the token. Then the engine goes on under the other
options.
"""

from collections.abc import Sequence
from dataclasses import replace

import yaml
from omegaconf import DictConfig, OmegaConf

from dllm.config import check_complete, compose
from dllm.engine.session import Session
from dllm.errors import ConfigError, RunError
from dllm.report.replay.film import Film
from dllm.report.replay.source import Recorded
from dllm.runs.decoding import Decoding, decoder, fitting
from dllm.runs.grading import grade
from dllm.runs.others import others
from dllm.runs.parts import build_parts
from dllm.step.trace import Step, Trace


_ALTERNATIVES = 5


def counterfactual(
    recorded: Recorded, sample: str | None, at: int, changes: Sequence[str]
) -> list[Film]:
    """The recorded ending and the other one; `at` counts forwards from 1, `changes` are
    `option=value` of the sampler's options and of `eos`.

    Raises `ConfigError` for a forward after which no decision ends and for options that can't hold
    from there on, `RunError` where the recorded forwards can't be repeated.
    """
    result = recorded.result(sample)
    trace = recorded.trace(result.id)
    if len(trace.steps) < 2:
        raise ConfigError(f"--at {at}: sample {result.id} was complete after one forward")
    if not 1 <= at < len(trace.steps):
        raise ConfigError(
            f"--at {at} is not in [1, {len(trace.steps) - 1}], before the last forward"
        )
    config = recorded.config.copy()
    config.trace, config.alternatives, config.batch_size = True, _ALTERNATIVES, 1
    config.score_sequential = False
    other = changed(config, recorded.sampler, changes)
    parts = build_parts(config)
    if "reference" in parts.sampler.needs:
        raise ConfigError(
            f"sampler={recorded.sampler} decides by the baseline's answers, which its run folder "
            "does not hold: no counterfactual"
        )
    checkpoint = recorded.checkpoint
    parts = replace(parts, sampler=fitting(config, parts, checkpoint))
    changed_parts = build_parts(other)
    changed_parts = replace(changed_parts, sampler=fitting(other, changed_parts, checkpoint))
    if changed_parts.sampler.models != parts.sampler.models:
        raise ConfigError("--set: another sampler's further models are not loaded midway")
    samples = parts.task.samples("test", config.limit, config.seed)
    found = [one for one in samples if one.id == result.id]
    if not found:
        raise ConfigError(f"sample {result.id} is no longer in the task's data")
    beside = others(config, parts.sampler, checkpoint)
    made_by = decoder(config, parts, checkpoint, beside)
    decoding = Decoding(config, parts.task, checkpoint, beside, made_by, found, {})
    session = Session(decoding.decoder)
    ticket = session.submit(decoding.prompts[0])
    ends = [0]
    while ends[-1] < at:
        session.step()
        made = session.trace(ticket)
        if made is None:
            raise ConfigError(f"--at {at}: the answer is complete before another decision is taken")
        ends.append(len(made.steps))
        _check_repeated(made, trace, ends[-2])
    if ends[-1] != at:
        near = " or ".join(str(end) for end in ends[-2:] if end)
        raise ConfigError(f"--at {at} lies between the forwards of one decision: take {near}")
    session.change(replace(decoding.decoder, sampler=changed_parts.sampler, eos=changed_parts.eos))
    finished = []
    while session.busy:
        finished += session.step().finished
    (_, outcome) = finished[-1]
    assert outcome.trace is not None
    ending = grade(outcome, found[0], parts.task, checkpoint.tokenizer, checkpoint.spec)
    return [
        recorded.film_of(result, trace, recorded.title, fork=at),
        recorded.film_of(
            ending, outcome.trace, f"{', '.join(changes)} from forward {at} on", fork=at
        ),
    ]


def changed(config: DictConfig, sampler: str, changes: Sequence[str]) -> DictConfig:
    """The configuration with other options; another rule goes on over the same blocks.

    Raises `ConfigError` for what can't change midway.
    """
    config = config.copy()
    for change in changes:
        key, given, text = change.partition("=")
        if not given or not (key in ("sampler", "eos") or key.startswith(("sampler.", "sampler/"))):
            raise ConfigError(
                f"--set {change}: sampler=NAME, sampler.OPTION=VALUE, sampler/PART=NAME and "
                "eos=POLICY can change midway"
            )
        if key == "sampler":
            before, config.sampler, sampler = config.sampler, compose([change]).sampler, text
            if "region" in before and "region" in config.sampler:
                config.sampler.region = before.region
        elif "/" in key:
            path = key.replace("/", ".")
            whole = compose([f"sampler={sampler}", change])
            OmegaConf.update(config, path, OmegaConf.select(whole, path), merge=False)
        else:
            if OmegaConf.select(config, key, default=config) is config:
                raise ConfigError(f"--set {change}: {key} is no option of sampler={sampler}")
            try:
                OmegaConf.update(config, key, yaml.safe_load(text))
            except yaml.YAMLError:
                raise ConfigError(f"--set {change}: {text!r} is no value") from None
    check_complete(config)
    return config


def _check_repeated(made: Trace, trace: Trace, start: int) -> None:
    for number in range(start, min(len(made.steps), len(trace.steps))):
        if _written(made.steps[number]) != _written(trace.steps[number]):
            raise RunError(
                f"sample {trace.sample_id}: forward {number + 1} does not write again what was "
                "recorded (other code, another device or half precision): no counterfactual"
            )


def _written(step: Step) -> tuple:
    return (
        *(step.kind, step.positions, step.tokens, step.edits, step.remasked),
        *(step.inserted, step.length, step.fill),
    )

"""What a notebook imports: load a model, generate, stream. `import dllm` offers the same names.

Options and defaults are those of `conf/`, and so are the errors: the same options decode the same
tokens here and on the command line.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedValueType

from dllm.config import GROUPS, build, check_complete, choices, compose
from dllm.engine.loop import Decoder
from dllm.engine.session import Session
from dllm.errors import ConfigError
from dllm.models.hub import ModelOptions
from dllm.models.tokenizers import Message
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.decoding import decoder, fitting
from dllm.runs.grading import encoded
from dllm.runs.others import others
from dllm.runs.parts import build_parts
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from dllm.step.sampler import Sampler
from dllm.step.trace import Trace
from dllm.tasks.prompts import Prompts


Prompted = str | Sequence[Message] | Sequence[int]
"""A user's text, a chat, or the token ids of a whole prompt."""


@dataclass(frozen=True)
class Generation:
    """One prompt's answer."""

    text: str
    """Before the first end token, special tokens left out."""
    tokens: tuple[int, ...]
    """The whole generation region; of a prompt with gaps it begins with the first of them."""
    effective: int
    """Decoded tokens before the first end token; in the gaps of a prompt none ends the answer."""
    forwards: Mapping[str, int]
    """Model calls by kind; those of every kind are the NFE."""
    other_forwards: Mapping[str, int]
    """Those of further models (a verifier), by name and kind; no part of the NFE."""
    trace: Trace | None
    """Every decision; None with `trace=False`."""
    failure: str | None
    """Why it could not be decoded to its end."""

    @property
    def nfe(self) -> int:
        return sum(self.forwards.values())

    @property
    def tpf(self) -> float:
        """Effective tokens per forward."""
        return self.effective / self.nfe if self.nfe else 0.0


@dataclass(frozen=True)
class Step:
    """What one step did to one prompt's answer."""

    prompt: int
    """Number of the prompt in the order given, from 0."""
    positions: tuple[int, ...]
    """Where it wrote, from the start of the answer: commits, edits and remasks."""
    tokens: tuple[int, ...]
    """What it wrote there."""
    text: str
    """The answer so far; positions that are not decided yet are left out."""
    result: Generation | None
    """The whole answer, once it is finished."""


def load(model: str | os.PathLike[str], **options: Any) -> Checkpoint:
    """A model by its name in `conf/model`, or a checkpoint's folder; `options` are those of the
    `model` group (`dtype="bfloat16"`, `device="cuda"`).

    Raises `ConfigError` for an unknown name, for a folder that can't be read and for a device that
    is not here.
    """
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    if not isinstance(model, str) or not model:
        raise ConfigError(f"model={model!r} is no name and no folder")
    folder = Path(model).expanduser()
    if model in choices("model"):
        given = {}
    elif folder.is_dir():
        model, given = "checkpoint", {"path": str(folder), "name": folder.name}
    else:
        known = ", ".join(choices("model"))
        raise ConfigError(f"model={model} is no folder and not one of {known}")
    named = {f"model.{name}": value for name, value in {**given, **options}.items()}
    config = _composed({"model": model}, named)
    built = build(config.model, "model")
    assert isinstance(built, ModelOptions)
    checkpoint = Checkpoint(built)
    checkpoint.check_here()
    return checkpoint


def generate(
    model: Checkpoint,
    prompts: Sequence[Prompted],
    sampler: str | Sampler = "localleap",
    infill: bool = False,
    **options: Any,
) -> list[Generation]:
    """Answers in the order of the prompts.

    sampler: a name in `conf/sampler`, or an object of your own
    infill: mask tokens in a prompt of ids are gaps to be filled: the generation region begins with
        the first of them, and `gen_length` masks follow the prompt as always. Its length is that
        of both, so that blocks must fit it (`sampler/region=uneven` does); needs `eos=none`
    options: as on the command line: `cache="dual"`, `gen_length=64`, `eos="cut"`,
        `**{"sampler.threshold": 0.8, "sampler/region": "adaptive"}`

    Raises `ConfigError` before the first forward for what can't be decoded.
    """
    results: dict[int, Generation] = {}
    for step in stream(model, prompts, sampler, infill, **options):
        if step.result is not None:
            results[step.prompt] = step.result
    return [results[number] for number in range(len(prompts))]


def stream(
    model: Checkpoint,
    prompts: Sequence[Prompted],
    sampler: str | Sampler = "localleap",
    infill: bool = False,
    **options: Any,
) -> Iterator[Step]:
    """What each step wrote, as it happens; arguments as `generate`."""
    if not isinstance(model, Checkpoint):
        raise ConfigError(f"model={model!r} is none: dllm.load(...) gives one")
    config = _config(sampler, options)
    session = Session(_decoder(model, sampler, config))
    tickets = {}
    for number, prompt in enumerate(_prompts(model, prompts, config.gen_length)):
        prompt = _with_gaps(prompt, model.spec.mask_id) if infill else prompt
        tickets[session.submit(prompt)] = number, prompt.region
    return _steps(session, model, tickets)


_Region = tuple[int, ...] | None
"""What a prompt's generation region holds at the start; None = masks only."""


def _steps(
    session: Session, model: Checkpoint, tickets: Mapping[int, tuple[int, _Region]]
) -> Iterator[Step]:
    mask = model.spec.mask_id
    while session.busy:
        events = session.step()
        finished = dict(events.finished)
        for ticket, written in events.written:
            (number, region), outcome = tickets[ticket], finished.get(ticket)
            answer = _before_end(written.answer.tolist(), model, region)
            yield Step(
                number,
                written.positions,
                written.tokens,
                model.tokenizer.decode([token for token in answer if token != mask]),
                None if outcome is None else _generation(outcome, model, region),
            )


def _generation(outcome: Outcome, model: Checkpoint, region: _Region) -> Generation:
    mask = model.spec.mask_id
    ended = _before_end(outcome.tokens, model, region)
    answer = [token for token in ended if token != mask]
    given = 0 if region is None else sum(token != mask for token in region[: len(ended)])
    return Generation(
        model.tokenizer.decode(answer),
        tuple(outcome.tokens),
        len(answer) - given,
        {str(kind): count for kind, count in outcome.cost.forwards.items()},
        {f"{m} {kind}": count for (m, kind), count in outcome.cost.other_forwards.items()},
        outcome.trace,
        outcome.failure,
    )


def _before_end(tokens: Sequence[int], model: Checkpoint, region: _Region) -> Sequence[int]:
    """Of a prompt with gaps the answer ends behind what was given."""
    given = (i for i, token in enumerate(region or ()) if token != model.spec.mask_id)
    first = max(given, default=-1) + 1
    ends = (i for i in range(first, len(tokens)) if tokens[i] in model.spec.eos_ids)
    return tokens[: next(ends, len(tokens))]


def _with_gaps(prompt: Prompt, mask: int) -> Prompt:
    """The prompt up to its first mask; the rest of it begins the generation region."""
    if mask not in prompt.tokens:
        return prompt
    first = prompt.tokens.index(mask)
    if not first:
        raise ConfigError(f"sample {prompt.sample_id}: a prompt can't begin with a gap")
    region = (*prompt.tokens[first:], *[mask] * prompt.gen_length)
    return replace(prompt, tokens=prompt.tokens[:first], gen_length=len(region), region=region)


_DECODE = ("sampler", "cache", "constraint", "gen_length", "eos", "batch_size", "seed")
_RECORD = ("trace", "alternatives", "allow_external")


def _config(sampler: str | Sampler, options: Mapping[str, Any]) -> DictConfig:
    """Raises `ConfigError` for an option that a run has and decoding alone would pass over."""
    for name, value in options.items():
        whole = re.split("[./@]", name)[0]
        if whole not in (*_DECODE, *_RECORD) and whole in compose():
            hint = ": dllm.load takes the model's" if whole == "model" else ""
            raise ConfigError(f"{name}={value!r} is no option of generate{hint}")
    groups = {name: value for name, value in options.items() if name in GROUPS or "/" in name}
    values = {name: value for name, value in options.items() if name not in groups}
    if isinstance(sampler, str):
        groups = {"sampler": sampler, **groups}
    elif not isinstance(sampler, Sampler):
        raise ConfigError(f"sampler={sampler!r} is no name in conf/sampler and no sampler")
    elif own := [name for name in options if name.startswith("sampler")]:
        raise ConfigError(f"{own[0]}={options[own[0]]!r}: the sampler is an object already")
    return _composed(groups, values)


def _composed(groups: Mapping[str, str], values: Mapping[str, Any]) -> DictConfig:
    """Raises `ConfigError` for a name that `conf/` does not have."""
    config = compose(["tracker=none", *(f"{name}={choice}" for name, choice in groups.items())])
    for name, value in values.items():
        try:
            OmegaConf.update(config, name, _plain(value))
        except UnsupportedValueType:
            raise ConfigError(f"{name}={value!r} is no value of an option") from None
        except OmegaConfBaseException:
            raise ConfigError(f"{name}={value!r} is no option") from None
    check_complete(config)
    return config


def _decoder(model: Checkpoint, sampler: str | Sampler, config: DictConfig) -> Decoder:
    parts = build_parts(config)
    if not isinstance(sampler, str):
        parts = replace(parts, sampler=sampler)
    fitted = fitting(config, parts, model)
    beside = others(config, fitted, model)
    return decoder(config, replace(parts, sampler=fitted), model, beside)


def _prompts(model: Checkpoint, given: Sequence[Prompted], gen_length: int) -> Iterator[Prompt]:
    """Texts and chats are the samples that `task=prompts` makes of them, so that the same draws
    are made."""
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence):
        raise ConfigError(f"prompts={given!r} must be a list of prompts")
    given = [_plain(prompt) for prompt in given]
    ids = [_are_ids(prompt) for prompt in given]
    # As a text the ids give a sample its own draws, whatever stands before it.
    texts = [str(prompt) if known else prompt for prompt, known in zip(given, ids, strict=True)]
    samples = Prompts.of(texts)  # type: ignore[arg-type]
    for prompt, sample, known in zip(given, samples, ids, strict=True):
        tokens = prompt if known else encoded(model.tokenizer, sample)
        yield Prompt(sample.id, tuple(tokens), gen_length)  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    """Tensors, arrays and their numbers as the lists and numbers that they hold, paths as texts."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple, range)) else value


def _are_ids(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(type(token) is int for token in prompt)

"""Replays recorded traces of other implementations: same tokens, same forwards, same commits per
step.

A trace file holds cases of one method on one checkpoint: the authors' parameters, prompt, output,
number of forwards and what each forward committed. `RecordedMethod` maps the parameters to a
command line of this toolkit; which methods are known is the caller's business
(`dllm.conform.methods`).
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.loading import load_model, read_spec
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction
from dllm.step.trace import Trace


Params = Mapping[str, Any]
TOLERANCE = 1e-4
"""Largest difference of a recorded confidence from ours."""


@dataclass(frozen=True)
class RecordedMethod:
    """How the cases of one trace file are decoded and what else they record."""

    overrides: Callable[[Params], list[str]]
    """The authors' parameters -> options of `scripts.run` (`eos=...` included)."""
    gen_length: Callable[[Params], int] = itemgetter("gen_length")
    """The authors' parameters -> masked positions at the start."""
    confidence: Callable[[float], float] | None = float
    """Our score of a committed position -> the recorded "confidence"; None = not comparable."""
    extras: Mapping[str, Callable[[Trace], object]] = field(default_factory=dict)
    """Further recorded fields -> the same value read from our trace."""
    planned: Mapping[str, Callable[[Sequence[Plan], int], object]] = field(default_factory=dict)
    """Further recorded fields -> the same value read from our forwards and the prompt's length."""
    steps: Callable[[Trace], list[list[tuple[int, int]]]] = Trace.commits
    """Our commits, grouped as the recorded "steps" are."""
    recorded_steps: Callable[[Params], Any] = itemgetter("steps")
    """A recorded case -> its steps as we count them."""
    reduced: Mapping[str, Callable[[Any], object]] = field(default_factory=dict)
    """Recorded fields that hold more than ours does -> the part to compare."""


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class FileResult:
    """One trace file against ours."""

    path: Path
    verdict: Verdict
    cases: int = 0
    differing: tuple[str, ...] = ()
    """What differs, one text per case."""
    reason: str = ""
    """Why the file was skipped or could not be decoded."""

    def line(self) -> str:
        words = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[self.verdict]
        if self.reason:
            return f"{words} {self.path}: {self.reason}"
        good = self.cases - len(self.differing)
        first = f"; {self.differing[0]}" if self.differing else ""
        return f"{words} {self.path}: {good}/{self.cases} cases{first}"


def method_of(path: Path) -> str | None:
    """The method that a file of recorded behaviour is of; None if it can't be told."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record.get("method") if isinstance(record, dict) else None


def check(
    path: Path, methods: Mapping[str, RecordedMethod], checkpoints: Sequence[Path]
) -> FileResult:
    """Decodes every case of a trace file with the checkpoint it names.

    Raises `ConfigError` for a file that is no trace or a checkpoint that is not in `checkpoints`.
    """
    record = _read(path)
    method = methods.get(record["method"])
    if method is None:
        reason = f"unknown method {record['method']}"
        return FileResult(path, Verdict.SKIPPED, reason=reason)
    folder = _find(record["checkpoint"], checkpoints)
    try:
        read_spec(folder)
    except ConfigError as error:
        return FileResult(path, Verdict.SKIPPED, reason=str(error))
    with tempfile.TemporaryDirectory() as tables:
        shared = _tables(record, Path(tables))
        found = [
            _compare(number, case, method, shared, folder)
            for number, case in enumerate(record["cases"])
        ]
    differing = tuple(text for text in found if text)
    verdict = Verdict.FAILED if differing else Verdict.PASSED
    return FileResult(path, verdict, len(found), differing)


class _Noting(Predictor):
    """Keeps the forwards of the sequence that it decodes."""

    def __init__(self, model: Transformer):
        super().__init__(model)
        self.plans: list[Plan] = []

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        self.plans.append(plan)
        return super().predict(plan, store)


def decode(
    overrides: Sequence[str], prompt: Prompt, folder: Path
) -> tuple[Outcome, Sequence[Plan]]:
    """The prompt decoded under the given command line, with its trace, and its forwards."""
    config = _configuration(tuple(overrides))
    predictor = _predictor(folder)
    predictor.plans = []
    decoder = Decoder(
        predictor,
        build(config.sampler, "sampler"),
        build(config.cache, "cache"),
        eos=EosPolicy(config.eos),
        record=True,
    )
    return next(decoder.decode([prompt])), predictor.plans


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        if isinstance(record, dict) and record.keys() >= {"method", "checkpoint", "cases"}:
            return record
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError:
        pass
    raise ConfigError(f"{path} is no recorded trace (method, checkpoint, cases)")


def _find(name: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        for candidate in (folder / name, folder):
            if candidate.name == name and (candidate / "config.json").is_file():
                return candidate
    looked = ", ".join(map(str, folders))
    raise ConfigError(f"checkpoint {name} is in none of {looked}: name its folder by --checkpoints")


def _tables(record: Params, folder: Path) -> dict[str, str]:
    """Tables that all cases of a file share, written out because options name them by path."""
    paths = {}
    for name, value in record.items():
        if isinstance(value, dict):
            path = folder / f"{name}.json"
            path.write_text(json.dumps(value))
            paths[name] = str(path)
    return paths


@cache
def _predictor(folder: Path) -> _Noting:
    return _Noting(load_model(folder))


def _configuration(overrides: tuple[str, ...]) -> DictConfig:
    """As `compose`, which takes 0.1 s: composed once per choice of groups."""
    values = [text for text in overrides if _is_value(text.split("=")[0])]
    groups = tuple(text for text in overrides if text not in values)
    config = OmegaConf.merge(_composed(groups), OmegaConf.from_dotlist(values))
    assert isinstance(config, DictConfig)
    return config


def _is_value(key: str) -> bool:
    """Whether an override sets a value, rather than choose a group's option."""
    return key == "eos" or ("." in key and "@" not in key)


@cache
def _composed(groups: tuple[str, ...]) -> DictConfig:
    return compose(groups)


def _compare(
    number: int, case: Params, method: RecordedMethod, shared: Params, folder: Path
) -> str | None:
    """What differs from the recorded case, None if nothing does."""
    # A case that shows a known quirk of the official code names it beside its parameters.
    params = {**shared, **case["params"], "quirk": case.get("quirk")}
    reference = tuple(case["reference"]) if "reference" in case else None
    gen_length = method.gen_length(params)
    prompt = Prompt(str(number), tuple(case["prompt"]), gen_length, reference)
    overrides = method.overrides(params)
    try:
        outcome, plans = decode(overrides, prompt, folder)
    except ConfigError as error:
        return f"case {number}: {error}"
    difference = _difference(case, method, outcome)
    if difference is None:
        difference = _planned_difference(case, method, plans)
    return None if difference is None else f"case {number} ({' '.join(overrides)}): {difference}"


def _difference(case: Params, method: RecordedMethod, outcome: Outcome) -> str | None:
    trace, nfe = outcome.trace, outcome.cost.nfe
    assert trace is not None
    if outcome.earlier is not None:
        # The recorded numbers of a phase are its own, ours count what came before.
        nfe -= outcome.earlier.cost.nfe
        found = _difference(case["stage1"], method, outcome.earlier)
        if found is not None:
            return f"stage 1: {found}"
    ours = [sorted(step) for step in method.steps(trace)]
    theirs = [sorted(map(tuple, step)) for step in method.recorded_steps(case)]
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            return f"step {step} commits {mine} instead of {other}"
    if len(ours) != len(theirs):
        return f"{len(ours)} steps instead of {len(theirs)}"
    if nfe != case["nfe"]:
        return f"{nfe} forwards instead of {case['nfe']}"
    if list(outcome.tokens) != case["output"]:
        return f"output {list(outcome.tokens)} instead of {case['output']}"
    if method.confidence is not None and "confidence" in case:
        found = _confidence_difference(case, method.confidence, trace)
        if found is not None:
            return found
    for name, read in method.extras.items():
        if name not in case:
            continue
        mine, theirs = read(trace), method.reduced.get(name, lambda value: value)(case[name])
        if mine != theirs:
            return f"{name} {mine} instead of {theirs}"
    return None


def _planned_difference(case: Params, method: RecordedMethod, plans: Sequence[Plan]) -> str | None:
    for name, read in method.planned.items():
        if name in case and (mine := read(plans, len(case["prompt"]))) != case[name]:
            return f"{name} {mine} instead of {case[name]}"
    return None


def _confidence_difference(
    case: Params, as_recorded: Callable[[float], float], trace: Trace
) -> str | None:
    for number, step in enumerate(trace.steps):
        ours = dict(zip(step.positions, step.scores, strict=True))
        recorded = zip(case["steps"][number], case["confidence"][number], strict=True)
        for (position, token), theirs in recorded:
            # A remasked position's recorded value is no score of ours.
            if token == trace.mask_id:
                continue
            mine = as_recorded(ours[position])
            if abs(mine - theirs) > TOLERANCE:
                return f"step {number}: confidence {mine:.6f} at {position} instead of {theirs}"
    return None

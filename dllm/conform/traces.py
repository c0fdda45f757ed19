"""Replays recorded traces of other implementations: same tokens, same forwards, same commits per
step.

A trace file holds cases of one method on one checkpoint: the authors' parameters, prompt, output,
number of forwards and what each forward committed. `dllm.conform.methods` maps the parameters to a
command line of this toolkit.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dllm.config import build, compose
from dllm.conform import checkpoints
from dllm.conform.methods import METHODS
from dllm.conform.methods.method import RecordedMethod
from dllm.conform.methods.options import Params
from dllm.conform.recorded import FileResult, Places, Recorded, Verdict, check_cases
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


_FIELDS = {"params": dict[str, Any], "prompt": list[int], "output": list[int], "nfe": int}
TOLERANCE = 1e-4
"""Largest difference of a recorded confidence from ours."""


def check(recorded: Recorded, places: Places) -> FileResult:
    """Decodes every case of a trace file with the checkpoint it names.

    Raises `ConfigError` for a file that is no trace and for a checkpoint that is not there or can't
    be read.
    """
    checkpoint = recorded.content.get("checkpoint")
    if not isinstance(checkpoint, str):
        raise ConfigError("no recorded trace: it names no checkpoint")
    method = METHODS.get(recorded.method)
    if method is None:
        reason = f"unknown method {recorded.method}"
        return FileResult(recorded.path, Verdict.SKIPPED, reason=reason)
    check_cases(recorded, _FIELDS)
    folder = checkpoints.find(checkpoint, recorded.path, places)
    read_spec(folder)  # one line for the file, not one per case
    with tempfile.TemporaryDirectory() as tables:
        shared = _tables(recorded.content, Path(tables))
        found = (
            _compare(number, case, method, shared, folder, places.device)
            for number, case in enumerate(recorded.cases)
        )
        return FileResult.of(recorded.path, found)


class _Noting(Predictor):
    """Keeps the forwards of the sequence that it decodes."""

    def __init__(self, model: Transformer):
        super().__init__(model)
        self.plans: list[Plan] = []

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        self.plans.append(plan)
        return super().predict(plan, store)


def decode(
    overrides: Sequence[str], prompt: Prompt, folder: Path, device: str
) -> tuple[Outcome, Sequence[Plan]]:
    """The prompt decoded under the given command line, with its trace, and its forwards."""
    config = _configuration(tuple(overrides))
    predictor = _predictor(folder, device)
    predictor.plans = []
    decoder = Decoder(
        predictor,
        build(config.sampler, "sampler"),
        build(config.cache, "cache"),
        eos=EosPolicy(config.eos),
        record=True,
    )
    return next(decoder.decode([prompt])), predictor.plans


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
def _predictor(folder: Path, device: str) -> _Noting:
    return _Noting(load_model(folder, device=device))


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
    number: int,
    case: Params,
    method: RecordedMethod,
    shared: Params,
    folder: Path,
    device: str,
) -> str | None:
    """What differs from the recorded case, None if nothing does."""
    # A case that shows a known quirk of the official code names it beside its parameters.
    params = {**shared, **case["params"], "quirk": case.get("quirk")}
    reference = tuple(case["reference"]) if "reference" in case else None
    try:
        gen_length, overrides = method.gen_length(params), method.overrides(params)
    except KeyError as error:
        return f"case {number}: its params lack {error}"
    prompt = Prompt(str(number), tuple(case["prompt"]), gen_length, reference)
    try:
        outcome, plans = decode(overrides, prompt, folder, device)
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
    if outcome.failure is not None and trace.mask_id not in case["output"]:
        return outcome.failure
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

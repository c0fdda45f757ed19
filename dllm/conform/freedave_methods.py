"""Recorded methods of FreeDave: see `dllm.conform.methods`.

Their loop commits an accepted draft as a whole, certain first position included; ours commits that
position with the forward that made it certain. The commit events are regrouped accordingly.
"""

import json
from collections.abc import Callable

from dllm.conform.traces import Params, RecordedMethod
from dllm.step.plan import ForwardKind
from dllm.step.trace import Trace


Commits = list[list[tuple[int, int]]]


def _options(prefix: str, **values: object) -> list[str]:
    return [f"{prefix}.{name}={json.dumps(value)}" for name, value in values.items()]


def _rule(p: Params, at: str) -> list[str]:
    """The rule that is reproduced, as the choice and options of `at`."""
    threshold = p["confidence_threshold"]
    if p["alg_temp"] == -1:
        choice, options = "left_to_right", {"threshold": threshold}
    elif threshold is not None:
        choice, options = "threshold", {"threshold": threshold}
    else:
        choice, options = "low_confidence", {}
    return [f"sampler@{at}={choice}", *_options(at, **options, conf_dtype="model")]


def _freedave(p: Params, match: str) -> list[str]:
    return [
        "sampler=freedave",
        "sampler.official_forwards=true",
        *_options("sampler", draft_steps=p["draft_steps"]),
        f"sampler.verify.match={match}",
    ]


def freedave_llada(p: Params) -> list[str]:
    at = "sampler.base"
    return [
        *_freedave(p, "subset"),
        *_rule(p, at),
        *_options(f"{at}.region", block_length=p["block_length"]),
        f"cache={p['cache']}",
        f"eos={'fill_after_end_block' if p['early_exit'] else 'none'}",
    ]


def freedave_dream(p: Params) -> list[str]:
    at = "sampler.base.base"
    return [
        *_freedave(p, "subset"),
        "sampler@sampler.base=opening",
        *_rule(p, at),
        *_options(f"{at}.region", block_length=p["block_length"]),
        f"cache={p['cache']}",
        "cache.shifted_rows=own",
    ]


def freedave_block(p: Params) -> list[str]:
    at = "sampler.base"
    choice, *options = _rule(p, at)
    if choice.endswith("=low_confidence"):
        choice = f"sampler@{at}=sdar"
        options += _options(at, mode="static")
    else:
        options.append(f"sampler/region@{at}.region=aligned")
    region = {"block_length": p["block_length"], "untrained": "allow", "overhang": "keep"}
    return [
        *_freedave(p, "exact"),
        *_options("sampler", eager=p["eager_acceptance_mode"]),
        choice,
        *options,
        *_options(f"{at}.region", **region),
        "cache=block",
    ]


def _events(opening_apart: bool) -> Callable[[Trace], Commits]:
    def events(trace: Trace) -> Commits:
        found: Commits = []
        pending: list[tuple[int, int]] = []
        block = None
        for step in trace.steps:
            if step.kind not in (ForwardKind.STEP, ForwardKind.REFRESH):
                continue
            if step.block != block:
                found, pending, block = [*found, pending], [], step.block
            # The step that completes a block also takes its prediction for the blocks ahead.
            drafted = {*step.marks.get("drafted", []), *step.marks.get("ahead", [])}
            commits = list(zip(step.positions, step.tokens, strict=True))
            found.append(pending + [pair for pair in commits if pair[0] in drafted])
            pending = [pair for pair in commits if pair[0] not in drafted]
            if opening_apart and step.kind == ForwardKind.REFRESH:
                found, pending = [*found, pending], []
        return [event for event in [*found, pending] if event]

    return events


def _forwards(trace: Trace) -> list[list[object]]:
    """Kind and rows fed of each forward."""
    found, block = [], None
    for step in trace.steps:
        if step.kind in (ForwardKind.PREFILL, ForwardKind.COMMIT):
            name = "prefill" if step.kind == ForwardKind.PREFILL else "store"
        else:
            name, block = "verify" if step.block == block else "first", step.block
        found.append([name, step.fed])
    return found


METHODS: dict[str, RecordedMethod] = {
    "freedave_llada": RecordedMethod(
        freedave_llada, steps=_events(False), extras={"forwards": _forwards}
    ),
    "freedave_dream": RecordedMethod(
        freedave_dream, steps=_events(True), extras={"forwards": _forwards}
    ),
    "freedave_block": RecordedMethod(
        freedave_block, steps=_events(False), extras={"forwards": _forwards}
    ),
}

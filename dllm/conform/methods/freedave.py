"""FreeDave.

Their loop commits an accepted draft as a whole, certain first position included; ours commits that
position with the forward that made it certain. The commit events are regrouped accordingly.
"""

from collections.abc import Callable

from dllm.conform.methods.method import RecordedMethod
from dllm.conform.methods.options import Params, command, either, inside, same
from dllm.conform.methods.thresholds import BLOCK, MODEL_DTYPE
from dllm.step.plan import ForwardKind
from dllm.step.trace import Trace


Commits = list[list[tuple[int, int]]]

FREEDAVE = command(
    "sampler=freedave", "sampler.official_forwards=true", same("sampler", "draft_steps")
)
SUBSET, EXACT = "sampler.verify.match=subset", "sampler.verify.match=exact"
THRESHOLD = {"sampler.threshold": "confidence_threshold"}


def _is_quota(p: Params) -> bool:
    return p["alg_temp"] != -1 and p["confidence_threshold"] is None


RULE = command(
    either(
        _is_quota,
        "sampler=low_confidence",
        either(
            lambda p: p["alg_temp"] == -1,
            command("sampler=left_to_right", THRESHOLD),
            command("sampler=threshold", THRESHOLD),
        ),
    ),
    MODEL_DTYPE,
    BLOCK,
)
RULE_IN_ALIGNED_BLOCKS = command(
    either(
        _is_quota,
        command("sampler=sdar", "sampler.mode=static", MODEL_DTYPE, BLOCK),
        command(RULE, "sampler/region=aligned"),
    ),
    "sampler.region.untrained=allow",
    "sampler.region.overhang=keep",
)
FREEDAVE_ON_LLADA = command(
    FREEDAVE,
    SUBSET,
    inside(RULE),
    "cache={cache}",
    {"eos": lambda p: "fill_after_end_block" if p["early_exit"] else "none"},
)
FREEDAVE_ON_DREAM = command(
    FREEDAVE,
    SUBSET,
    inside("sampler=opening", inside(RULE)),
    "cache={cache}",
    "cache.shifted_rows=own",
)
FREEDAVE_ON_BLOCKS = command(
    FREEDAVE,
    EXACT,
    {"sampler.eager": "eager_acceptance_mode"},
    inside(RULE_IN_ALIGNED_BLOCKS),
    "cache=block",
)


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
    name: RecordedMethod(overrides, steps=_events(opening_apart), extras={"forwards": _forwards})
    for name, overrides, opening_apart in (
        ("freedave_llada", FREEDAVE_ON_LLADA, False),
        ("freedave_dream", FREEDAVE_ON_DREAM, True),
        ("freedave_block", FREEDAVE_ON_BLOCKS, False),
    )
}

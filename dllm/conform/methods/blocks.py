"""Block diffusion (SDAR, TDAR's engine, TCCF) and adaptive blocks."""

from collections import Counter
from typing import Any

from dllm.conform.methods.method import RecordedMethod
from dllm.conform.methods.options import Params, command, either, inside, same
from dllm.conform.methods.thresholds import BLOCK, MODEL_DTYPE
from dllm.step.trace import Trace


ALIGNED = command(
    "sampler.region.untrained=allow",
    BLOCK,
    {
        "sampler.logits_transform.temperature": "temperature",
        "sampler.logits_transform.top_k": lambda p: p.get("top_k") or None,
        "sampler.logits_transform.top_p": lambda p: p.get("top_p"),
    },
)
SDAR = command(
    "sampler=sdar",
    {
        "sampler.mode": lambda p: p["remasking_strategy"].removeprefix("low_confidence_"),
        "sampler.threshold": "confidence_threshold",
        "sampler.denoising_steps": "denoising_steps",
        "eos": lambda p: "keep_block" if p["stopping_criteria_idx"] else "none",
    },
    "sampler.region.overhang=keep",
    ALIGNED,
    "cache=block",
)

TDAR_RULES = {
    "bacd": command("sampler=bacd", same("sampler", "confidence_lower", "confidence_upper")),
    # >= and the best one always: Fast-dLLM's rule, not SDAR's.
    "dynamic": command(
        "sampler=threshold",
        "sampler/region=aligned",
        "sampler/logits_transform=nucleus",
        {"sampler.threshold": "confidence_threshold"},
        MODEL_DTYPE,
    ),
}


def _tdar_rule(p: Params) -> list[str]:
    strategy = p["strategy"].removeprefix("low_confidence_")
    quota = command(
        "sampler=sdar",
        f"sampler.mode={strategy}",
        same("sampler", "denoising_steps"),
        "sampler.quota_rest=dropped",
    )
    return TDAR_RULES.get(strategy, quota)(p)


def _tdar_eos(p: Params) -> str:
    """Where the budget ends in the block of the first stop id, the engine ignores that id."""
    return "cut_after_block" if p["stop_ids"] and not p.get("quirk") else "none"


TDAR = command(
    _tdar_rule,
    ALIGNED,
    "cache=block",
    "cache.prefill=shared",
    "cache.commit=before_next",
    {"eos": _tdar_eos},
)


def _tccf(p: Params) -> list[str]:
    first, last = p["stage1"], p["stage2"]
    options = {
        "sampler.final_region.block_length": lambda _: last["block_length"],
        "sampler.final_gen_length": lambda _: last["gen_length"],
        "sampler.critic_ids": "critic",
    }
    return command("sampler=tccf", options, lambda _: inside(TDAR)(first))(p)


ADABLOCK = {
    "sampler.region.default_block_length": "block_length",
    "sampler.threshold": "threshold",
    **same("sampler.region", "delimiter_ids", "delimiter_threshold", "window_fraction"),
}
ADABLOCK_ON_DREAM = command("sampler=adablock_dream", ADABLOCK)


def _forwards_per_block(trace: Trace) -> list[int]:
    return [count for _, count in sorted(Counter(step.block for step in trace.steps).items())]


def _blocks(trace: Trace) -> list[tuple[int, int]]:
    return [step.opened for step in trace.steps if step.opened is not None]


def _block_lengths(trace: Trace) -> list[int]:
    return [end - start for start, end in _blocks(trace)]


def _openings(trace: Trace) -> list[tuple[int, int]]:
    return [(start, end - start) for start, end in _blocks(trace)]


_ADAPTIVE: dict[str, Any] = {
    "extras": {
        "block_history": _block_lengths,
        "nfe_history": _forwards_per_block,
        "openings": _openings,
    },
    "reduced": {"openings": lambda found: [(one["start"], one["size"]) for one in found]},
}


def _kinds(trace: Trace) -> str:
    """A letter per forward: p(refill), d(enoise), c(ommit)."""
    return "".join("d" if step.kind == "step" else step.kind[0] for step in trace.steps)


def _engine_kinds(trace: Trace) -> str:
    """As `_kinds`, with P for a first forward over the prompt that is the first denoising step."""
    kinds = _kinds(trace)
    return kinds if kinds[0] == "p" else "P" + kinds[1:]


METHODS: dict[str, RecordedMethod] = {
    "sdar_block_diffusion": RecordedMethod(SDAR, extras={"kinds": _kinds}),
    "bacd": RecordedMethod(TDAR, extras={"kinds": _engine_kinds}),
    "tccf": RecordedMethod(
        _tccf, lambda p: p["stage1"]["gen_length"], extras={"kinds": _engine_kinds}
    ),
    "adablock_llada": RecordedMethod(
        command("sampler=adablock", ADABLOCK, "cache={cache}"), **_ADAPTIVE
    ),
    "adablock_dream": RecordedMethod(
        command(
            either(
                lambda p: p["cache"] == "none",
                ADABLOCK_ON_DREAM,
                command("sampler=opening", inside(ADABLOCK_ON_DREAM), "cache.shifted_rows=own"),
            ),
            "cache={cache}",
        ),
        **_ADAPTIVE,
    ),
}

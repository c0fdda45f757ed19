"""Recorded methods of block diffusion and adaptive blocks: see `dllm.conform.methods`."""

import json
from collections import Counter
from typing import Any

from dllm.conform.traces import Params, RecordedMethod
from dllm.step.trace import Trace


def _options(**values: object) -> list[str]:
    """`sampler.name=value` per option; `__` stands for a dot."""
    return [f"sampler.{k.replace('__', '.')}={json.dumps(value)}" for k, value in values.items()]


def _aligned(p: Params) -> list[str]:
    return _options(
        region__block_length=p["block_length"],
        region__untrained="allow",
        logits_transform__temperature=p["temperature"],
        logits_transform__top_k=p.get("top_k") or None,
        logits_transform__top_p=p.get("top_p"),
    )


def sdar_block_diffusion(p: Params) -> list[str]:
    rule = _options(
        mode=p["remasking_strategy"].removeprefix("low_confidence_"),
        threshold=p["confidence_threshold"],
        denoising_steps=p["denoising_steps"],
        region__overhang="keep",
    )
    eos = "keep_block" if p["stopping_criteria_idx"] else "none"
    return ["sampler=sdar", *rule, *_aligned(p), "cache=block", f"eos={eos}"]


def tdar_engine(p: Params) -> list[str]:
    strategy = p["strategy"].removeprefix("low_confidence_")
    if strategy == "bacd":
        names = ("confidence_lower", "confidence_upper")
        rule = ["sampler=bacd", *_options(**{name: p[name] for name in names})]
    elif strategy == "dynamic":
        # >= and the best one always: Fast-dLLM's rule, not SDAR's.
        parts = ["sampler=threshold", "sampler/region=aligned", "sampler/logits_transform=nucleus"]
        rule = [*parts, *_options(threshold=p["confidence_threshold"], conf_dtype="model")]
    else:
        steps = {"denoising_steps": p["denoising_steps"], "quota_rest": "dropped"}
        rule = ["sampler=sdar", *_options(mode=strategy, **steps)]
    # Where the budget ends in the block of the first stop id, the engine ignores that id (trap 2).
    ends = p["stop_ids"] and not p.get("quirk")
    eos = "cut_after_block" if ends else "none"
    cache = ["cache=block", "cache.prefill=shared", "cache.commit=before_next"]
    return [*rule, *_aligned(p), *cache, f"eos={eos}"]


def tccf(p: Params) -> list[str]:
    first, last = p["stage1"], p["stage2"]
    region = _options(
        final_region__block_length=last["block_length"],
        final_gen_length=last["gen_length"],
        critic_ids=p["critic"],
    )
    base, *rest = tdar_engine(first)
    rest = [text.replace("sampler.", "sampler.base.", 1) for text in rest]
    return ["sampler=tccf", base.replace("sampler=", "sampler@sampler.base="), *region, *rest]


def _adablock(p: Params) -> list[str]:
    region = _options(
        region__default_block_length=p["block_length"],
        region__delimiter_ids=p["delimiter_ids"],
        region__delimiter_threshold=p["delimiter_threshold"],
        region__window_fraction=p["window_fraction"],
    )
    return [*region, *_options(threshold=p["threshold"]), f"cache={p['cache']}"]


def adablock_llada(p: Params) -> list[str]:
    return ["sampler=adablock", *_adablock(p)]


def adablock_dream(p: Params) -> list[str]:
    if p["cache"] == "none":
        return ["sampler=adablock_dream", *_adablock(p)]
    base = [text.replace("sampler.", "sampler.base.", 1) for text in _adablock(p)]
    choice = ["sampler=opening", "sampler@sampler.base=adablock_dream"]
    return [*choice, *base, "cache.shifted_rows=own"]


def _forwards_per_block(trace: Trace) -> list[int]:
    return [count for _, count in sorted(Counter(step.block for step in trace.steps).items())]


def _block_lengths(trace: Trace) -> list[int]:
    return [end - start for start, end in _blocks(trace)]


def _blocks(trace: Trace) -> list[tuple[int, int]]:
    return [step.opened for step in trace.steps if step.opened is not None]


def _openings(trace: Trace) -> list[tuple[int, int]]:
    return [(start, end - start) for start, end in _blocks(trace)]


_ADABLOCK: dict[str, Any] = {
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
    "sdar_block_diffusion": RecordedMethod(sdar_block_diffusion, extras={"kinds": _kinds}),
    "adablock_llada": RecordedMethod(adablock_llada, **_ADABLOCK),
    "adablock_dream": RecordedMethod(adablock_dream, **_ADABLOCK),
    "tccf": RecordedMethod(
        tccf, lambda p: p["stage1"]["gen_length"], extras={"kinds": _engine_kinds}
    ),
    "bacd": RecordedMethod(tdar_engine, extras={"kinds": _engine_kinds}),
}

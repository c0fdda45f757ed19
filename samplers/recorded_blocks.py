"""Recorded methods of block diffusion and adaptive blocks: see `samplers.recorded`."""

import json

from dllm.conform.traces import Params, RecordedMethod
from dllm.trace import Trace


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


def _kinds(trace: Trace) -> str:
    """A letter per forward: p(refill), d(enoise), c(ommit)."""
    return "".join("d" if step.kind == "step" else step.kind[0] for step in trace.steps)


def _engine_kinds(trace: Trace) -> str:
    """As `_kinds`, with P for a first forward over the prompt that is the first denoising step."""
    kinds = _kinds(trace)
    return kinds if kinds.startswith("p") else "P" + kinds[1:]


METHODS: dict[str, RecordedMethod] = {
    "sdar_block_diffusion": RecordedMethod(sdar_block_diffusion, extras={"kinds": _kinds}),
    "bacd": RecordedMethod(tdar_engine, extras={"kinds": _engine_kinds}),
}

"""Rules that rank by history, entropy or background, WINO, and Dream's schedule."""

import operator

from dllm.conform.methods.method import RecordedMethod
from dllm.conform.methods.options import Overrides, command, same
from dllm.conform.methods.readings import counted
from dllm.conform.methods.thresholds import BLOCK
from dllm.step.trace import Trace


KLASS = {
    "sampler.steps": "steps",
    "sampler.threshold": "conf_threshold",
    "sampler.kl_threshold": "kl_threshold",
    "sampler.history": "kl_history_length",
}
PC_SAMPLER = {
    "sampler.steps": "steps",
    "sampler.position_decay": "lambd",
    "sampler.clip": "alpha",
    "sampler.background": "background",
}
FILTERED = same("sampler.logits_transform", "temperature", "top_p", "top_k")


def _dream(alg: str) -> Overrides:
    return command(f"sampler=dream_{alg}", same("sampler", "steps", "eps", "alg_temp"), FILTERED)


def _accepted(trace: Trace) -> list[int]:
    return [len(step.positions) for step in trace.steps]


def _remasked(trace: Trace) -> list[int]:
    return [len(step.remasked) for step in trace.steps]


METHODS: dict[str, RecordedMethod] = {
    "klass": RecordedMethod(
        command("sampler=klass", "sampler.masks_left=leave", KLASS, BLOCK),
        extras={"ready": counted("ready")},
    ),
    "eb_sampler": RecordedMethod(
        command("sampler=eb_sampler", same("sampler", "gamma")), confidence=operator.neg
    ),
    "pc_sampler": RecordedMethod(command("sampler=pc_sampler", PC_SAMPLER, BLOCK)),
    "wino": RecordedMethod(
        command("sampler=wino", same("sampler", "threshold", "threshold_back"), BLOCK),
        extras={"accepted": _accepted, "remasked": _remasked},
    ),
    "dream_maskgit_plus": RecordedMethod(_dream("maskgit_plus")),
    "dream_topk_margin": RecordedMethod(_dream("topk_margin")),
    "dream_entropy": RecordedMethod(_dream("entropy")),
    "dream_confidence_threshold": RecordedMethod(
        command("sampler=fastdllm_dream", same("sampler", "steps", "threshold"), FILTERED),
        extras={"budget": counted("budget")},
    ),
}

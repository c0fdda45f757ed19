"""Learn2PD, its oracle and EoTP, and R2-dLLM."""

import json
from pathlib import Path

import torch

from dllm.conform.methods.method import RecordedMethod
from dllm.conform.methods.options import Overrides, Params, command, inside, same
from dllm.conform.methods.readings import fed, lengths, marked
from dllm.conform.methods.thresholds import (
    BLOCK,
    MODEL_DTYPE,
    QUOTA,
    THRESHOLD,
    THRESHOLD_OR_FACTOR,
)
from dllm.models.filter import filter_from_weights, save_filter
from dllm.step.trace import Trace


def _filter_file(p: Params) -> str:
    """The recorded filter as a file, beside the recorded tables."""
    table = Path(p["filters"])
    path = table.with_name(f"{p['filter']}.safetensors")
    if not path.exists():
        weights = json.loads(table.read_text())[p["filter"]]
        tensors = {name: torch.tensor(value) for name, value in weights.items()}
        save_filter(filter_from_weights(tensors, path, {}), path)
    return str(path)


LEARN2PD = command(
    "sampler=learn2pd",
    {
        "sampler.filter": _filter_file,
        "sampler.accept_threshold": "accept_thres",
        "sampler.steps": "steps",
    },
    BLOCK,
    "sampler.narrow_blocks=pad",
)
READINGS = {"lengths": lengths, "accepted": marked("accepted"), "rows": fed}


def _eotp(inner: Overrides, conf_dtype: str, zone: str, cache: str) -> Overrides:
    rule = inside(inner, f"sampler.conf_dtype={conf_dtype}")
    return command("sampler=eotp", rule, f"sampler.zone={zone}", f"cache={cache}")


R2DLLM = {
    "sampler.cluster_size": "confidence_cluster_size",
    "sampler.cluster_unmasked": "confidence_cluster_unmasked",
    # Off where the authors leave it out.
    "sampler.spatial_threshold": lambda p: (
        1.0 if p["spatial_threshold"] is None else p["spatial_threshold"]
    ),
    "sampler.run_length": lambda p: p.get("token_cluster_size", 2),
    "sampler.temporal_value": lambda p: p["temporal_eval"].replace("ave", "mean"),
    **same("sampler", "token_cluster", "temporal_steps", "temporal_threshold"),
}
R2DLLM_ON_DREAM = command(
    "sampler=r2dllm",
    inside("sampler=opening", inside(THRESHOLD, MODEL_DTYPE)),
    R2DLLM,
    "cache={cache}",
    "cache.shifted_rows=own",
    "cache.legacy_idle_forward=true",
)


def _stages(trace: Trace) -> list[dict[str, list[int]]]:
    """Positions committed by each stage of R2-dLLM, per forward."""
    order = ("base", "sweep", "token", "temporal")
    return [{k: step.marks[k] for k in order if k in step.marks} for step in trace.steps]


def _steps_without_refresh(trace: Trace) -> int:
    return sum(step.kind != "refresh" for step in trace.steps)


METHODS: dict[str, RecordedMethod] = {
    "learn2pd": RecordedMethod(command(LEARN2PD, MODEL_DTYPE), extras=READINGS),
    "learn2pd_eot": RecordedMethod(_eotp(LEARN2PD, "model", "sequence", "none"), extras=READINGS),
    "learn2pd_eot_prefix": RecordedMethod(
        _eotp(LEARN2PD, "float64", "block", "prefix"), extras=READINGS
    ),
    "learn2pd_eot_dual": RecordedMethod(
        _eotp(LEARN2PD, "float64", "block", "dual"), extras=READINGS
    ),
    # The second pass; tests/scripts/test_collect.py compares the first one and the records.
    "learn2pd_collect": RecordedMethod(command("sampler=oracle", BLOCK)),
    "eotp": RecordedMethod(_eotp(QUOTA, "model", "sequence", "none"), extras={"lengths": lengths}),
    "r2dllm_llada": RecordedMethod(
        command("sampler=r2dllm", inside(THRESHOLD_OR_FACTOR), R2DLLM, "cache={cache}"),
        extras={"stages": _stages},
    ),
    "r2dllm_dream": RecordedMethod(
        R2DLLM_ON_DREAM, extras={"stages": _stages, "official_steps": _steps_without_refresh}
    ),
}

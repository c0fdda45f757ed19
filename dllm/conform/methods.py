"""Recorded methods: the authors' parameters of a trace -> the options that decode the same way
here.

One function per method under its name in the trace files, entered in `METHODS`; `python -m
scripts.conform` and the tests look nowhere else.
"""

import json
import operator
import re
from collections.abc import Callable
from pathlib import Path

import torch

from dllm.conform import block_methods, cache_methods, freedave_methods
from dllm.conform.traces import Params, RecordedMethod
from dllm.models.filter import filter_from_weights, save_filter
from dllm.step.trace import Trace


def _option(name: str, value: object) -> str:
    """`name=value` as YAML reads it."""
    if value is None or isinstance(value, bool):
        return f"{name}={str(value).lower().replace('none', 'null')}"
    return f"{name}={value!r}" if isinstance(value, float) else f"{name}={value}"


def _sampler(choice: str, **options: object) -> list[str]:
    """A sampler and its options; `__` stands for the dot to a part's option."""
    named = [_option(f"sampler.{k.replace('__', '.')}", v) for k, v in options.items()]
    return [f"sampler={choice}", *named]


def _marked(name: str) -> Callable[[Trace], list[list[int]]]:
    """Marked positions per forward."""
    return lambda trace: [step.marks.get(name, []) for step in trace.steps]


def _counted(name: str) -> Callable[[Trace], list[int]]:
    """Number of marked positions per forward."""
    return lambda trace: [len(step.marks.get(name, [])) for step in trace.steps]


def _steps_with(name: str) -> Callable[[Trace], list[int]]:
    """Forwards with at least one marked position."""
    return lambda trace: [number for number, step in enumerate(trace.steps) if name in step.marks]


def _quota(p: Params, conf_dtype: str) -> list[str]:
    return _sampler(
        "low_confidence",
        steps=p["steps"],
        region__block_length=p["block_length"],
        conf_dtype=conf_dtype,
    )


def llada_low_confidence(p: Params) -> list[str]:
    eot = [_option("sampler.eot_ids", [p["eot_id"]])] if "eot_id" in p else []
    return [
        *_quota(p, "model"),
        _option("sampler.cfg_scale", p["cfg_scale"]),
        _option("sampler.logits_eos_inf", p["logits_eos_inf"]),
        _option("sampler.confidence_eos_eot_inf", p["confidence_eos_eot_inf"]),
        *eot,
    ]


def fastdllm_threshold(p: Params) -> list[str]:
    if p["threshold"] is None:
        return _quota(p, "float64")
    return _sampler("threshold", threshold=p["threshold"], region__block_length=p["block_length"])


def fastdllm_factor(p: Params) -> list[str]:
    return _sampler("factor", factor=p["factor"], region__block_length=p["block_length"])


def localleap(p: Params) -> list[str]:
    eos = "eos=fill_after_block" if p["early_stop"] else "eos=none"
    if p["relaxed_threshold"] is None:
        return [*fastdllm_threshold(p), eos]
    options = {name: p[name] for name in ("threshold", "relaxed_threshold", "radius")}
    return [*_sampler("localleap", **options, region__block_length=p["block_length"]), eos]


def _dinfer(choice: str, p: Params, **options: object) -> list[str]:
    unroll = {name: p[name] for name in ("maximum_unroll", "expected_tpf")}
    eos = "fill_after_block" if p["early_stop"] else "stop_after_block"
    options = {**options, **unroll, "region__block_length": p["block_length"]}
    return [*_sampler(choice, **options), f"eos={eos}"]


def dinfer_threshold(p: Params) -> list[str]:
    dtype = "float64" if p["use_float64"] else "float32"
    return _dinfer("dinfer_threshold", p, threshold=p["threshold"], conf_dtype=dtype)


def credit(p: Params) -> list[str]:
    constants = {
        "logits_transform__fusion": p["credit_alpha"],
        "logits_transform__decay": p["decay_beta"],
        "logits_transform__exponent": p["boost_gamma"],
    }
    return _dinfer("credit", p, threshold=p["threshold"], **constants)


def dinfer_hierarchy(p: Params) -> list[str]:
    thresholds = {"threshold": p["threshold"], "low_threshold": p["low_threshold"]}
    return _dinfer("dinfer_hierarchy", p, **thresholds)


def _flipped(trace: Trace) -> list[list[int]]:
    """(forward, position) of every commit that is not the arg-max of the raw logits."""
    return [
        [number, position]
        for number, step in enumerate(trace.steps)
        for position in step.marks.get("flips", [])
    ]


def klass(p: Params) -> list[str]:
    return _sampler(
        "klass",
        steps=p["steps"],
        threshold=p["conf_threshold"],
        kl_threshold=p["kl_threshold"],
        history=p["kl_history_length"],
        region__block_length=p["block_length"],
    )


def eb_sampler(p: Params) -> list[str]:
    return _sampler("eb_sampler", gamma=p["gamma"])


def pc_sampler(p: Params) -> list[str]:
    return _sampler(
        "pc_sampler",
        steps=p["steps"],
        position_decay=p["lambd"],
        clip=p["alpha"],
        background=p["background"],
        region__block_length=p["block_length"],
    )


def wino(p: Params) -> list[str]:
    thresholds = {"threshold": p["threshold"], "threshold_back": p["threshold_back"]}
    return _sampler("wino", **thresholds, region__block_length=p["block_length"])


def _accepted(trace: Trace) -> list[int]:
    return [len(step.positions) for step in trace.steps]


def _remasked(trace: Trace) -> list[int]:
    return [len(step.remasked) for step in trace.steps]


def _filtered(choice: str, p: Params, **options: object) -> list[str]:
    kept = {f"logits_transform__{name}": p[name] for name in ("temperature", "top_p", "top_k")}
    return _sampler(choice, **options, **kept)


def _dream(alg: str) -> Callable[[Params], list[str]]:
    def overrides(p: Params) -> list[str]:
        options = {name: p[name] for name in ("steps", "eps", "alg_temp")}
        return _filtered(f"dream_{alg}", p, **options)

    return overrides


def fastdllm_dream(p: Params) -> list[str]:
    return _filtered("fastdllm_dream", p, steps=p["steps"], threshold=p["threshold"])


def _fastdllm_cache(cache: str) -> Callable[[Params], list[str]]:
    def overrides(p: Params) -> list[str]:
        rule = fastdllm_factor(p) if p.get("factor") is not None else fastdllm_threshold(p)
        legacy = p["version"] == "june-2025"
        return [*rule, f"cache={cache}", _option("cache.legacy_idle_forward", legacy)]

    return overrides


def _fed(trace: Trace) -> list[int]:
    """Rows fed per forward."""
    return [step.fed for step in trace.steps]


def _refreshes(trace: Trace) -> list[int]:
    """Forwards that refreshed a cache."""
    return [number for number, step in enumerate(trace.steps) if step.kind == "refresh"]


_CACHED = {"rows": _fed, "full_forwards": _refreshes}


def _filter_file(p: Params) -> str:
    """The recorded filter as a file, beside the recorded tables."""
    table = Path(p["filters"])
    path = table.with_name(f"{p['filter']}.safetensors")
    if not path.exists():
        weights = json.loads(table.read_text())[p["filter"]]
        tensors = {name: torch.tensor(value) for name, value in weights.items()}
        save_filter(filter_from_weights(tensors, path, {}), path)
    return str(path)


def _learn2pd(conf_dtype: str) -> Callable[[Params], list[str]]:
    def overrides(p: Params) -> list[str]:
        options = {
            "filter": _filter_file(p),
            "accept_threshold": p["accept_thres"],
            "steps": p["steps"],
            "narrow_blocks": "pad",
            "region.block_length": p["block_length"],
            "conf_dtype": conf_dtype,
        }
        return ["sampler=learn2pd", *(_option(f"sampler.{k}", v) for k, v in options.items())]

    return overrides


def _as_base(overrides: list[str]) -> list[str]:
    """The choice and options of a sampler as those of the base inside another one."""
    moved = [re.sub(r"^sampler([.@])", r"sampler.base\1", text) for text in overrides]
    moved = [text.replace("sampler.base@sampler.", "sampler@sampler.base.") for text in moved]
    return [re.sub("^sampler=", "sampler@sampler.base=", text) for text in moved]


def _with_eotp(
    inner: Callable[[Params], list[str]], zone: str, cache: str = "none"
) -> Callable[[Params], list[str]]:
    def overrides(p: Params) -> list[str]:
        return ["sampler=eotp", *_as_base(inner(p)), f"sampler.zone={zone}", f"cache={cache}"]

    return overrides


def _collect(p: Params) -> list[str]:
    """The second pass; tests/scripts/test_collect.py compares the first one and the records."""
    return _sampler("oracle", region__block_length=p["block_length"])


def _eotp(p: Params) -> list[str]:
    return _quota(p, "model")


def _lengths(trace: Trace) -> list[int]:
    """Length of the answer after each forward."""
    return [len(canvas) for canvas in trace.replay()]


_LEARN2PD = {"lengths": _lengths, "accepted": _marked("accepted"), "rows": _fed}


_R2_VALUES = {"last": "last", "ave": "mean", "max": "max"}


def _r2dllm(p: Params) -> list[str]:
    options = {
        "cluster_size": p["confidence_cluster_size"],
        "cluster_unmasked": p["confidence_cluster_unmasked"],
        # Off where the authors leave it out.
        "spatial_threshold": 1.0 if p["spatial_threshold"] is None else p["spatial_threshold"],
        "token_cluster": p["token_cluster"],
        "run_length": p.get("token_cluster_size", 2),
        "temporal_steps": p["temporal_steps"],
        "temporal_threshold": p["temporal_threshold"],
        "temporal_value": _R2_VALUES[p["temporal_eval"]],
    }
    return [_option(f"sampler.{name}", value) for name, value in options.items()]


def _r2dllm_llada(p: Params) -> list[str]:
    rule = fastdllm_factor(p) if p["factor"] is not None else fastdllm_threshold(p)
    return ["sampler=r2dllm", *_as_base(rule), *_r2dllm(p), f"cache={p['cache']}"]


def _r2dllm_dream(p: Params) -> list[str]:
    rule = [*fastdllm_threshold(p), "sampler.conf_dtype=model"]
    return [
        "sampler=r2dllm",
        *_as_base(["sampler=opening", *_as_base(rule)]),
        *_r2dllm(p),
        f"cache={p['cache']}",
        "cache.shifted_rows=own",
        "cache.legacy_idle_forward=true",
    ]


def _stages(trace: Trace) -> list[dict[str, list[int]]]:
    """Positions committed by each stage of R2-dLLM, per forward."""
    order = ("base", "sweep", "token", "temporal")
    return [{k: step.marks[k] for k in order if k in step.marks} for step in trace.steps]


def _steps_without_refresh(trace: Trace) -> int:
    return sum(step.kind != "refresh" for step in trace.steps)


METHODS: dict[str, RecordedMethod] = {
    "llada_low_confidence": RecordedMethod(llada_low_confidence),
    "fastdllm_threshold": RecordedMethod(fastdllm_threshold),
    "fastdllm_factor": RecordedMethod(
        fastdllm_factor, extras={"quirk_steps": _steps_with("quirk")}
    ),
    "fastdllm_prefix_cache": RecordedMethod(_fastdllm_cache("prefix"), extras=_CACHED),
    "fastdllm_dual_cache": RecordedMethod(_fastdllm_cache("dual"), extras=_CACHED),
    "learn2pd": RecordedMethod(_learn2pd("model"), extras=_LEARN2PD),
    "learn2pd_eot": RecordedMethod(_with_eotp(_learn2pd("model"), "sequence"), extras=_LEARN2PD),
    "learn2pd_eot_prefix": RecordedMethod(
        _with_eotp(_learn2pd("float64"), "block", "prefix"), extras=_LEARN2PD
    ),
    "learn2pd_eot_dual": RecordedMethod(
        _with_eotp(_learn2pd("float64"), "block", "dual"), extras=_LEARN2PD
    ),
    "learn2pd_collect": RecordedMethod(_collect),
    "r2dllm_llada": RecordedMethod(_r2dllm_llada, extras={"stages": _stages}),
    "r2dllm_dream": RecordedMethod(
        _r2dllm_dream, extras={"stages": _stages, "official_steps": _steps_without_refresh}
    ),
    "eotp": RecordedMethod(_with_eotp(_eotp, "sequence"), extras={"lengths": _lengths}),
    "localleap": RecordedMethod(localleap, extras={"anchors": _marked("anchors")}),
    **block_methods.METHODS,
    **cache_methods.METHODS,
    **freedave_methods.METHODS,
    "dinfer_threshold": RecordedMethod(dinfer_threshold),
    "dinfer_hierarchy": RecordedMethod(dinfer_hierarchy),
    "credit": RecordedMethod(
        credit,
        extras={"flips": _flipped},
        reduced={"flips": lambda flips: [flip[:2] for flip in flips]},
    ),
    "klass": RecordedMethod(klass, extras={"ready": _counted("ready")}),
    "eb_sampler": RecordedMethod(eb_sampler, confidence=operator.neg),
    "pc_sampler": RecordedMethod(pc_sampler),
    "wino": RecordedMethod(wino, extras={"accepted": _accepted, "remasked": _remasked}),
    "dream_maskgit_plus": RecordedMethod(_dream("maskgit_plus")),
    "dream_topk_margin": RecordedMethod(_dream("topk_margin")),
    "dream_entropy": RecordedMethod(_dream("entropy")),
    "dream_confidence_threshold": RecordedMethod(
        fastdllm_dream, extras={"budget": _counted("budget")}
    ),
}

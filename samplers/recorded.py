"""Recorded methods: the authors' parameters of a trace -> the options that decode the same way
here.

One function per method under its name in the trace files, entered in `METHODS`; `python -m
scripts.conform` and the tests look nowhere else.
"""

from collections.abc import Callable

from dllm.conform.traces import Params, RecordedMethod
from dllm.trace import Trace


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


METHODS: dict[str, RecordedMethod] = {
    "llada_low_confidence": RecordedMethod(llada_low_confidence),
    "fastdllm_threshold": RecordedMethod(fastdllm_threshold),
    "fastdllm_factor": RecordedMethod(
        fastdllm_factor, extras={"quirk_steps": _steps_with("quirk")}
    ),
    "fastdllm_prefix_cache": RecordedMethod(_fastdllm_cache("prefix"), extras=_CACHED),
    "fastdllm_dual_cache": RecordedMethod(_fastdllm_cache("dual"), extras=_CACHED),
    "localleap": RecordedMethod(localleap, extras={"anchors": _marked("anchors")}),
}

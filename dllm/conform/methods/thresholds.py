"""LLaDA's quota and the threshold rules around Fast-dLLM, LocalLeap and dInfer."""

from dllm.conform.methods.method import RecordedMethod
from dllm.conform.methods.options import Overrides, Params, command, either, same
from dllm.conform.methods.readings import marked, steps_with
from dllm.step.trace import Trace


BLOCK = {"sampler.region.block_length": "block_length"}
QUOTA = command("sampler=low_confidence", same("sampler", "steps"), BLOCK)
MODEL_DTYPE = "sampler.conf_dtype=model"

LLADA = command(
    QUOTA,
    MODEL_DTYPE,
    same("sampler", "cfg_scale", "logits_eos_inf", "confidence_eos_eot_inf"),
    either(lambda p: "eot_id" in p, {"sampler.eot_ids": lambda p: [p["eot_id"]]}, {}),
)
THRESHOLD = either(
    lambda p: p["threshold"] is None,
    command(QUOTA, "sampler.conf_dtype=float64"),
    command("sampler=threshold", same("sampler", "threshold"), BLOCK),
)
FACTOR = command("sampler=factor", same("sampler", "factor"), BLOCK)
THRESHOLD_OR_FACTOR = either(lambda p: p.get("factor") is None, THRESHOLD, FACTOR)
LOCALLEAP = command(
    either(
        lambda p: p["relaxed_threshold"] is None,
        THRESHOLD,
        command(
            "sampler=localleap", same("sampler", "threshold", "relaxed_threshold", "radius"), BLOCK
        ),
    ),
    {"eos": lambda p: "fill_after_block" if p["early_stop"] else "none"},
)


def _dinfer(choice: str, *names: str) -> Overrides:
    return command(
        f"sampler={choice}",
        same("sampler", "threshold", *names, "maximum_unroll", "expected_tpf"),
        BLOCK,
        {"eos": lambda p: "fill_after_block" if p["early_stop"] else "stop_after_block"},
    )


def _dinfer_dtype(p: Params) -> str:
    return "float64" if p["use_float64"] else "float32"


CREDIT = {
    "sampler.logits_transform.fusion": "credit_alpha",
    "sampler.logits_transform.decay": "decay_beta",
    "sampler.logits_transform.exponent": "boost_gamma",
}


def _flipped(trace: Trace) -> list[list[int]]:
    """(forward, position) of every commit that is not the arg-max of the raw logits."""
    return [
        [number, position]
        for number, step in enumerate(trace.steps)
        for position in step.marks.get("flips", [])
    ]


METHODS: dict[str, RecordedMethod] = {
    "llada_low_confidence": RecordedMethod(LLADA),
    "fastdllm_threshold": RecordedMethod(THRESHOLD),
    "fastdllm_factor": RecordedMethod(FACTOR, extras={"quirk_steps": steps_with("quirk")}),
    "localleap": RecordedMethod(LOCALLEAP, extras={"anchors": marked("anchors")}),
    "dinfer_threshold": RecordedMethod(
        command(_dinfer("dinfer_threshold"), {"sampler.conf_dtype": _dinfer_dtype})
    ),
    "dinfer_hierarchy": RecordedMethod(_dinfer("dinfer_hierarchy", "low_threshold")),
    "credit": RecordedMethod(
        command(_dinfer("credit"), CREDIT),
        extras={"flips": _flipped},
        reduced={"flips": lambda flips: [flip[:2] for flip in flips]},
    ),
}

"""Approximate caches: Fast-dLLM's prefix and dual, dLLM-Cache, d2Cache."""

from collections.abc import Sequence

from dllm.conform.methods.method import RecordedMethod
from dllm.conform.methods.options import Overrides, command, either, same
from dllm.conform.methods.readings import fed, positions
from dllm.conform.methods.thresholds import BLOCK, THRESHOLD_OR_FACTOR
from dllm.step.plan import Plan
from dllm.step.trace import Trace


def _fast_dllm(cache: str) -> Overrides:
    legacy = {"cache.legacy_idle_forward": lambda p: p["version"] == "june-2025"}
    return command(THRESHOLD_OR_FACTOR, f"cache={cache}", legacy)


BY_STEPS = command("sampler=low_confidence", {"sampler.steps": "steps"}, BLOCK)
# k best per step, without a schedule of steps.
PER_STEP = command(
    "sampler=sdar",
    "sampler/region=fixed",
    {"sampler.per_step": "num_transfer_tokens"},
    either(
        lambda p: p.get("threshold") is None,
        "sampler.mode=static",
        {"sampler.threshold": "threshold"},
    ),
    BLOCK,
)
BY_COUNT_OR_THRESHOLD = either(lambda p: p.get("steps"), BY_STEPS, PER_STEP)

DLLM_CACHE = command(
    BY_COUNT_OR_THRESHOLD,
    "cache=dllm_cache",
    {
        "cache.prompt_interval": "kp",
        "cache.response_interval": "kr",
        "cache.update_share": "rho",
    },
)
D2CACHE = command(
    either(
        lambda p: p["sigma"] is None,
        BY_COUNT_OR_THRESHOLD,
        command(
            "sampler=certainty_prior",
            {"sampler.sigma": "sigma", "sampler.least": "num_transfer_tokens"},
        ),
    ),
    "cache=d2cache",
    {"cache.sigma": "cache_sigma", **same("cache", "rollout_p", "current_k", "inflate_w")},
)


def _refreshes(trace: Trace) -> list[int]:
    """Forwards that refreshed a cache."""
    return [number for number, step in enumerate(trace.steps) if step.kind == "refresh"]


def _chosen_rows(trace: Trace) -> list[list[int] | None]:
    """Fed positions; null for the first forward, which feeds all."""
    return [positions(step) if step.spans else None for step in trace.steps]


def _intervals(trace: Trace) -> str:
    """Per forward: B both prompt and response whole, R response, P prompt, - neither."""
    letters = {(): "-", (0, trace.gen_length): "R"}
    return "".join(
        "B" if step.kind == "refresh" else letters.get((step.spans or [()])[0], "P")
        for step in trace.steps
    )


def _least_similar(plans: Sequence[Plan], prompt: int) -> list[list[list[int]]]:
    """Per forward and layer: response rows recomputed because their values changed most."""
    forwards = []
    for plan in plans:
        partial = plan.partial
        assert partial is not None, "the policy plans no other forwards"
        layers = partial.chosen[int(partial.whole_first_layer) :] if partial.count.any() else []
        rows = [(chosen.cpu() & ~partial.whole)[0].nonzero()[:, 0] - prompt for chosen in layers]
        forwards.append([row.tolist() for row in rows])
    return forwards


FAST_DLLM = {"rows": fed, "full_forwards": _refreshes}

METHODS: dict[str, RecordedMethod] = {
    "fastdllm_prefix_cache": RecordedMethod(_fast_dllm("prefix"), extras=FAST_DLLM),
    "fastdllm_dual_cache": RecordedMethod(_fast_dllm("dual"), extras=FAST_DLLM),
    "dllm_cache": RecordedMethod(
        DLLM_CACHE, extras={"refresh": _intervals}, planned={"selected": _least_similar}
    ),
    "d2cache": RecordedMethod(D2CACHE, extras={"rows": _chosen_rows}),
}

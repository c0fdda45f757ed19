"""Methods that decide in a window: Window-Diffusion and WeDLM."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dllm.conform.methods.method import RecordedMethod
from dllm.conform.methods.options import command, same
from dllm.conform.methods.readings import positions
from dllm.step.plan import Plan
from dllm.step.trace import Step, Trace


WEDLM_STREAMING = command(
    "sampler=wedlm",
    "cache=causal",
    {
        "sampler.region.window": "window_size",
        "sampler.position_penalty": "pos_penalty_factor",
        **same("sampler", "entropy_threshold", "stop_sequences"),
    },
)
WEDLM_BLOCK = command(
    "sampler=wedlm_block",
    {
        # Their threshold 0 stands for one position per step.
        "sampler.threshold": lambda p: p["confidence_threshold"] or 1.0,
        "sampler.region.block_length": "block_size",
        "sampler.logits_transform.temperature": "temperature",
    },
)
WINDOW_ON_LLADA = command(
    "sampler=window",
    "cache=window",
    {
        "sampler.base.steps": "steps",
        "sampler.active": "active_tokens",
        "cache.outer_window": "window_tokens",
        "cache.refresh_cycle": "refresh_cycle",
    },
)
WINDOW_ON_DREAM = command(
    "sampler=window_dream",
    "cache=window_dream",
    same("sampler.base", "steps", "eps"),
    same("sampler.base.logits_transform", "top_p", "top_k"),
    {
        "sampler.active": "i_win_size",
        "sampler.slide": "slide_window",
        "sampler.early_stop": "early_stop",
        "cache.outer_window": lambda p: p["o_win_size"] - 1,
        "cache.refresh_cycle": "refresh_cycle",
    },
)


def _before(trace: Trace) -> Iterator[tuple[Step, np.ndarray]]:
    """Every forward with the generation region it was made on."""
    canvas = np.full(trace.gen_length, trace.mask_id)
    for step, after in zip(trace.steps, trace.replay(), strict=True):
        yield step, canvas
        canvas = after


def _window_rows(trace: Trace) -> list[list[int]]:
    """Fed positions in physical order: decided ones first."""
    rows = []
    for step, canvas in _before(trace):
        fed = [] if step.kind == "prefill" else positions(step)
        rows.append(sorted(fed, key=lambda p, canvas=canvas: (canvas[p] == trace.mask_id, p)))
    return rows


def _window_tokens(trace: Trace) -> list[list[int]]:
    pairs = zip(_window_rows(trace), _before(trace), strict=True)
    return [[int(canvas[p]) for p in rows] for rows, (_, canvas) in pairs]


def _decided_rows(trace: Trace) -> list[int]:
    return [sum(t != trace.mask_id for t in tokens) for tokens in _window_tokens(trace)]


def _prefix_growth(trace: Trace) -> list[int]:
    """Tokens appended to the answer by each forward: the leading decided run."""
    lengths = []
    for _, canvas in _before(trace):
        masks = (canvas == trace.mask_id).nonzero()[0]
        lengths.append(int(masks[0]) if masks.size else canvas.size)
    lengths[-1] = _output_length(trace)
    return [lengths[0], *np.diff(lengths).tolist()]


def _output_length(trace: Trace) -> int:
    return trace.steps[-1].length or trace.gen_length


def _fallbacks(trace: Trace) -> int:
    return sum("fallback" in step.marks for step in trace.steps)


def _p_cache(trace: Trace) -> float:
    """Answer tokens per row fed after the prefill."""
    return round(_output_length(trace) / sum(map(len, _window_rows(trace))), 4)


def _fed_positions(trace: Trace) -> list[str | list[int]]:
    return ["all" if step.kind == "refresh" else positions(step) for step in trace.steps]


def _fed_span(trace: Trace) -> list[list[int]]:
    """First and last fed position; the whole canvas begins with the prompt."""
    spans = []
    for step, canvas in _before(trace):
        first, last = (step.spans or [(canvas.size - step.fed, canvas.size)])[0]
        spans.append([first, last])
    return spans


def _kinds(trace: Trace) -> str:
    return "".join(step.kind[0] for step in trace.steps)


def _shortened(trace: Trace) -> list[list[int]]:
    return [[number, s.length] for number, s in enumerate(trace.steps) if s.length is not None]


def _kept_commits(case: Mapping[str, Any]) -> list[list[list[int]]]:
    """Recorded commits without those that the same step cut off again."""
    lengths = dict(case.get("truncate", ()))
    return [
        [commit for commit in step if commit[0] < lengths.get(number, commit[0] + 1)]
        for number, step in enumerate(case["steps"])
    ]


def _phases(plans: Sequence[Plan], prompt: int) -> list[list[int]]:
    """Per phase: generated positions that its steps may attend to."""
    sets = []
    for before, plan in pairwise(plans):
        if before.kind == "refresh" and plan.kind != "refresh":
            assert plan.visible is not None, "a step sees the prompt at least"
            at = plan.visible[0].nonzero()[:, 0] - prompt
            sets.append(at[at >= 0].tolist())
    return sets


METHODS: dict[str, RecordedMethod] = {
    "wedlm_streaming": RecordedMethod(
        WEDLM_STREAMING,
        extras={
            "rows": _window_rows,
            "row_tokens": _window_tokens,
            "filled_rows": _decided_rows,
            "committed": _prefix_growth,
            "fallbacks": _fallbacks,
            "p_cache": _p_cache,
        },
    ),
    "wedlm_block": RecordedMethod(WEDLM_BLOCK),
    "window_diffusion_llada": RecordedMethod(
        WINDOW_ON_LLADA, extras={"fed": _fed_positions}, planned={"visible": _phases}
    ),
    "window_diffusion_dream": RecordedMethod(
        WINDOW_ON_DREAM,
        extras={"fed": _fed_span, "kinds": _kinds, "truncate": _shortened},
        recorded_steps=_kept_commits,
    ),
}

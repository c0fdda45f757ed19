"""Recorded methods of caches, windows and streaming: see `samplers.recorded`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dllm.conform.traces import Params, RecordedMethod
from dllm.trace import Step, Trace


def _options(**values: object) -> list[str]:
    """`name=value` per option; `__` stands for a dot."""
    return [f"{k.replace('__', '.')}={json.dumps(value)}" for k, value in values.items()]


def wedlm_streaming(p: Params) -> list[str]:
    return [
        "sampler=wedlm",
        "cache=causal",
        *_options(
            sampler__region__window=p["window_size"],
            sampler__entropy_threshold=p["entropy_threshold"],
            sampler__position_penalty=p["pos_penalty_factor"],
            sampler__stop_sequences=p["stop_sequences"],
        ),
    ]


def wedlm_block(p: Params) -> list[str]:
    # Their threshold 0 stands for one position per step.
    rule = _options(sampler__threshold=p["confidence_threshold"] or 1.0)
    blocks = _options(
        sampler__region__block_length=p["block_size"],
        sampler__logits_transform__temperature=p["temperature"],
    )
    return ["sampler=wedlm_block", *rule, *blocks]


def _before(trace: Trace) -> Iterator[tuple[Step, np.ndarray]]:
    """Every forward with the generation region it was made on."""
    canvas = np.full(trace.gen_length, trace.mask_id)
    for step, after in zip(trace.steps, trace.replay(), strict=True):
        yield step, canvas
        canvas = after


def _positions(step: Step) -> list[int]:
    return [position for first, last in step.spans for position in range(first, last)]


def _window_rows(trace: Trace) -> list[list[int]]:
    """Fed positions in physical order: decided ones first."""
    rows = []
    for step, canvas in _before(trace):
        fed = [] if step.kind == "prefill" else _positions(step)
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


WEDLM: dict[str, Callable[[Trace], Any]] = {
    "rows": _window_rows,
    "row_tokens": _window_tokens,
    "filled_rows": _decided_rows,
    "committed": _prefix_growth,
    "fallbacks": _fallbacks,
    "p_cache": _p_cache,
}

METHODS: dict[str, RecordedMethod] = {
    "wedlm_streaming": RecordedMethod(wedlm_streaming, extras=WEDLM),
    "wedlm_block": RecordedMethod(wedlm_block),
}

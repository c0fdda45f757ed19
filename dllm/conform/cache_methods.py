"""Recorded methods of caches, windows and streaming: see `dllm.conform.methods`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dllm.conform.traces import Params, RecordedMethod
from dllm.step.plan import Plan
from dllm.step.trace import Step, Trace


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


def window_diffusion_llada(p: Params) -> list[str]:
    return [
        "sampler=window",
        "cache=window",
        *_options(
            sampler__base__steps=p["steps"],
            sampler__active=p["active_tokens"],
            cache__outer_window=p["window_tokens"],
            cache__refresh_cycle=p["refresh_cycle"],
        ),
    ]


def window_diffusion_dream(p: Params) -> list[str]:
    return [
        "sampler=window_dream",
        "cache=window_dream",
        *_options(
            sampler__base__steps=p["steps"],
            sampler__base__eps=p["eps"],
            sampler__base__logits_transform__top_p=p["top_p"],
            sampler__base__logits_transform__top_k=p["top_k"],
            sampler__active=p["i_win_size"],
            sampler__slide=p["slide_window"],
            sampler__early_stop=p["early_stop"],
            cache__outer_window=p["o_win_size"] - 1,
            cache__refresh_cycle=p["refresh_cycle"],
        ),
    ]


def dllm_cache(p: Params) -> list[str]:
    cache = _options(
        cache__prompt_interval=p["kp"],
        cache__response_interval=p["kr"],
        cache__update_share=p["rho"],
    )
    return [*_by_count_or_threshold(p), "cache=dllm_cache", *cache]


def d2cache(p: Params) -> list[str]:
    rule = _by_count_or_threshold(p)
    if p["sigma"] is not None:
        prior = _options(sampler__sigma=p["sigma"], sampler__least=p["num_transfer_tokens"])
        rule = ["sampler=certainty_prior", *prior]
    cache = _options(
        cache__sigma=p["cache_sigma"],
        cache__rollout_p=p["rollout_p"],
        cache__current_k=p["current_k"],
        cache__inflate_w=p["inflate_w"],
    )
    return [*rule, "cache=d2cache", *cache]


def _by_count_or_threshold(p: Params) -> list[str]:
    """A fixed number per step (over all steps, or as num_transfer_tokens), or a threshold."""
    region = _options(sampler__region__block_length=p["block_length"])
    if p.get("threshold") is None:
        steps = p.get("steps") or p["gen_length"] // p["num_transfer_tokens"]
        return ["sampler=low_confidence", *_options(sampler__steps=steps), *region]
    rule = _options(
        sampler__threshold=p["threshold"],
        sampler__denoising_steps=p["block_length"] // p["num_transfer_tokens"],
    )
    return ["sampler=sdar", "sampler/region=fixed", *rule, *region]


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


def _fed_positions(trace: Trace) -> list[str | list[int]]:
    return ["all" if step.kind == "refresh" else _positions(step) for step in trace.steps]


def _chosen_rows(trace: Trace) -> list[list[int] | None]:
    """Fed positions; null for the first forward, which feeds all."""
    return [_positions(step) if step.spans else None for step in trace.steps]


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


def _intervals(trace: Trace) -> str:
    """Per forward: B both prompt and response whole, R response, P prompt, - neither."""
    letters = {(): "-", (0, trace.gen_length): "R"}
    return "".join(
        "B" if step.kind == "refresh" else letters.get((step.spans or [()])[0], "P")
        for step in trace.steps
    )


def _phases(plans: Sequence[Plan], prompt: int) -> list[list[int]]:
    """Per phase: generated positions that its steps may attend to."""
    sets = []
    for before, plan in pairwise(plans):
        if before.kind == "refresh" and plan.kind != "refresh":
            assert plan.visible is not None, "a step sees the prompt at least"
            at = plan.visible[0].nonzero()[:, 0] - prompt
            sets.append(at[at >= 0].tolist())
    return sets


def _least_similar(plans: Sequence[Plan], prompt: int) -> list[list[list[int]]]:
    """Per forward and layer: response rows recomputed because their values changed most."""
    forwards = []
    for plan in plans:
        partial = plan.partial
        assert partial is not None, "the policy plans no other forwards"
        layers = partial.chosen[int(partial.whole_first_layer) :] if partial.count.any() else []
        rows = [(chosen & ~partial.whole)[0].nonzero()[:, 0] - prompt for chosen in layers]
        forwards.append([row.tolist() for row in rows])
    return forwards


WEDLM: dict[str, Callable[[Trace], Any]] = {
    "rows": _window_rows,
    "row_tokens": _window_tokens,
    "filled_rows": _decided_rows,
    "committed": _prefix_growth,
    "fallbacks": _fallbacks,
    "p_cache": _p_cache,
}

METHODS: dict[str, RecordedMethod] = {
    "d2cache": RecordedMethod(d2cache, extras={"rows": _chosen_rows}),
    "dllm_cache": RecordedMethod(
        dllm_cache, extras={"refresh": _intervals}, planned={"selected": _least_similar}
    ),
    "wedlm_streaming": RecordedMethod(wedlm_streaming, extras=WEDLM),
    "wedlm_block": RecordedMethod(wedlm_block),
    "window_diffusion_llada": RecordedMethod(
        window_diffusion_llada, extras={"fed": _fed_positions}, planned={"visible": _phases}
    ),
    "window_diffusion_dream": RecordedMethod(
        window_diffusion_dream,
        extras={"fed": _fed_span, "kinds": _kinds, "truncate": _shortened},
        recorded_steps=_kept_commits,
    ),
}

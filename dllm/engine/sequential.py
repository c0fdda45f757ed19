"""What the same answer costs token by token: the price of committing several at once.

Along the path that was taken, each token is predicted again with those before it in view and
everything behind it masked, tokens of one round from left to right (one canvas per token). The sum
of -log2 p of these is I_seq; what the path took more is the realised total correlation of its
rounds ("From Bits to Rounds", arXiv 2511.21103; as divergences: ParallelBench, arXiv 2510.04767,
section 3). A masked model is no consistent joint distribution: another order has another sum.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dllm.cache.none import NoCache
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.plan import Request
from dllm.step.trace import Trace


def one_by_one(
    predictor: Predictor, prompt: Prompt, layout: Layout, trace: Trace, batch_size: int
) -> list[float] | None:
    """Raw softmax probability (float32) of every committed token, in the trace's order; None for a
    path that has taken tokens back, changed them or moved them."""
    path = _path(trace)
    if path is None:
        return None
    found: list[float] = []
    for begin in range(0, len(path), batch_size):
        numbers = range(begin, min(begin + batch_size, len(path)))
        found += _predicted(predictor, prompt, layout, path, numbers)
    return found


def _path(trace: Trace) -> list[tuple[int, int]] | None:
    """(position, token) in the order of the commits."""
    path: list[tuple[int, int]] = []
    for step in trace.steps:
        if step.remasked or step.edits or step.inserted:
            return None
        path += sorted(zip(step.positions, step.tokens, strict=True))
    grown = any(position >= trace.gen_length for position, _ in path)
    return None if grown else path


def _predicted(
    predictor: Predictor,
    prompt: Prompt,
    layout: Layout,
    path: Sequence[tuple[int, int]],
    numbers: Sequence[int],
) -> list[float]:
    spec, start = predictor.spec, len(prompt.tokens)
    canvas = Canvas.empty(layout.length, spec.mask_id, spec.eos_ids)
    for row, number in enumerate(numbers):
        canvas.append(prompt, layout, torch.Generator())
        for position, token in path[:number]:
            canvas.tokens[row, start + position] = token
    wanted = np.array([[start + path[number][0]] for number in numbers])
    cache = NoCache()
    cache.begin(spec)
    (plan,) = cache.plan(canvas, Request(wanted), None)
    with torch.inference_mode():
        prediction = predictor.predict(plan, None)
    assert prediction is not None
    tokens = torch.tensor([path[number][1] for number in numbers])
    p = prediction.logits[:, 0].float().softmax(dim=-1).cpu()
    return p.gather(1, tokens[:, None])[:, 0].tolist()

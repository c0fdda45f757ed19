"""Scores of proposed tokens: dtype, source and tie order of every confidence in one place.

Ties are broken by position, ascending, which differs from the official codes' unstable top-k on
exact ties only.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


ConfDtype = Literal["float64", "float32", "model"]
_DTYPES = {"float64": torch.float64, "float32": torch.float32}

_BUFFER = {True: 2**22, False: 2**28}
"""Bytes of scores computed at a time: on the CPU, elsewhere."""
_SPAN, _LARGE = 512, 2**13
"""Tokens of which the largest is found at once, in vocabularies of at least `_LARGE`."""


def cast(logits: Float[Tensor, "*axes vocab"], dtype: ConfDtype) -> Float[Tensor, "*axes vocab"]:
    """Logits in the dtype in which the softmax is taken; `model` leaves them."""
    return logits if dtype == "model" else logits.to(_DTYPES[dtype])


def highest(
    logits: Float[Tensor, "*axes vocab"],
) -> tuple[Float[Tensor, "*axes"], Int[Tensor, "*axes"]]:
    """Largest logit and its token; the lowest id wins exact ties."""
    if logits.shape[-1] < _LARGE:
        return tuple(logits.max(dim=-1))  # type: ignore[return-value]
    value, span = _spans(logits).max(dim=-1)
    near, start = _span(logits, span)
    return value, start + near.argmax(dim=-1)


def confidence(
    logits: Float[Tensor, "batch rows vocab"],
    tokens: Int[Tensor, "batch rows"],
    dtype: ConfDtype,
) -> Float[Tensor, "batch rows"]:
    """Softmax probability of the given tokens, in [0, 1].

    Computed as exp(l - max) / sum(exp(l - max)), as softmax does, without storing all
    probabilities.
    """
    if dtype == "model" and logits.dtype != torch.float32:
        return logits.softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)
    top = cast(logits.amax(dim=-1), dtype)
    chosen = cast(logits.gather(-1, tokens[..., None]).squeeze(-1), dtype)
    return (chosen - top).exp_() / _total(logits, top)


def top_confidence(
    logits: Float[Tensor, "batch rows vocab"],
    top: Float[Tensor, "batch rows"],
    dtype: ConfDtype,
) -> Float[Tensor, "batch rows"]:
    """`confidence` of each row's most likely token, whose logit is `top`."""
    if dtype == "model" and logits.dtype != torch.float32:
        return logits.softmax(dim=-1).amax(dim=-1)
    return _total(logits, cast(top, dtype)).reciprocal_()


def margin(
    logits: Float[Tensor, "batch rows vocab"], dtype: ConfDtype
) -> Float[Tensor, "batch rows"]:
    """Difference of the two largest probabilities, in [0, 1]."""
    if logits.shape[-1] < _LARGE:
        first, second = logits.topk(2, dim=-1).values.unbind(dim=-1)
    else:
        spans = _spans(logits)
        first, span = spans.max(dim=-1)
        near, _ = _span(logits, span)
        others = spans.scatter(-1, span[..., None], -torch.inf).amax(dim=-1)
        second = near.topk(2, dim=-1).values[..., 1].maximum(others)
    first, second = cast(first, dtype), cast(second, dtype)
    whole = _total(logits, first).log_().add_(first)  # ln sum e^l
    return (first - whole).exp_() - (second - whole).exp_()


def entropy(
    logits: Float[Tensor, "batch rows vocab"], dtype: ConfDtype
) -> Float[Tensor, "batch rows"]:
    """Entropy in nats, >= 0; tokens at -inf count as impossible."""
    return _by_row(_nats, logits, cast(logits.amax(dim=-1), dtype)).clamp_(min=0)


def _total(
    logits: Float[Tensor, "*axes vocab"], top: Float[Tensor, "*axes"]
) -> Float[Tensor, "*axes"]:
    """Sum of exp(l - top), in the dtype of `top`."""
    return _by_row(lambda shifted: shifted.exp_().sum(dim=-1), logits, top)


def _nats(shifted: Float[Tensor, "*axes vocab"]) -> Float[Tensor, "*axes"]:
    """ln sum e^s - sum s e^s / sum e^s: one exponential per token, no logarithm."""
    weight = shifted.clamp_(min=-1e4).exp()  # the bound keeps 0 * -inf out
    total = weight.sum(dim=-1)
    return total.log() - weight.mul_(shifted).sum(dim=-1) / total


def _by_row(
    compute: Callable[[Tensor], Tensor],
    logits: Float[Tensor, "*axes vocab"],
    top: Float[Tensor, "*axes"],
) -> Float[Tensor, "*axes"]:
    """One value per row of l - top in the dtype of `top`; `compute` may write over them.

    As many rows at a time as the processor's cache holds, in one buffer: a copy of all logits in
    float64 costs several times what is computed with it. Rows without logits (NaN) are then left
    out.
    """
    vocab = logits.shape[-1]
    fitting = max(2, _BUFFER[logits.is_cpu] // (vocab * top.itemsize))
    if top.numel() <= fitting:
        return compute(logits.to(top.dtype) - top[..., None])
    every, highest = logits.flatten(0, -2), top.flatten()
    found = torch.full_like(highest, torch.nan)
    known = (~highest.isnan()).nonzero()[:, 0]
    # Shared out evenly: a row on its own would be summed in another order than beside others.
    parts = known.tensor_split(max(1, -(-len(known) // fitting)))
    buffer = top.new_empty(len(parts[0]), vocab)
    for rows in parts:
        shifted = torch.sub(every[rows], highest[rows, None], out=buffer[: len(rows)])
        found[rows] = compute(shifted)
    return found.view(top.shape)


def _spans(logits: Float[Tensor, "*axes vocab"]) -> Float[Tensor, "*axes spans"]:
    """The largest logit of every `_SPAN` tokens. Torch finds a maximum without its index ten times
    faster than one with it."""
    whole = logits.shape[-1] // _SPAN * _SPAN
    found = logits[..., :whole].unflatten(-1, (-1, _SPAN)).amax(dim=-1)
    if whole == logits.shape[-1]:
        return found
    return torch.cat((found, logits[..., whole:].amax(dim=-1, keepdim=True)), dim=-1)


def _span(
    logits: Float[Tensor, "*axes vocab"], span: Int[Tensor, "*axes"]
) -> tuple[Float[Tensor, "*axes near"], Int[Tensor, "*axes"]]:
    """`_SPAN` logits with those of each row's span among them, and the token of the first."""
    # The last span may be shorter: others come before it, all of them smaller than its largest.
    start = (span * _SPAN).clamp_(max=logits.shape[-1] - _SPAN)
    tokens = start[..., None] + torch.arange(_SPAN, device=logits.device)
    return logits.gather(-1, tokens), start


def rank_order(score: Float[Tensor, "batch rows"]) -> Int[Tensor, "batch rows"]:
    """Row indices from the highest score to the lowest, ties by position."""
    return score.sort(dim=-1, descending=True, stable=True).indices


def top_k(
    score: Float[Tensor, "batch rows"],
    candidates: Bool[Tensor, "batch rows"],
    k: Int[Tensor, "batch"],
) -> Bool[Tensor, "batch rows"]:
    """The k best candidates of each row (fewer where fewer candidates exist)."""
    if score.shape[1] == 0:
        return candidates
    order = rank_order(score.masked_fill(~candidates, -torch.inf))
    ranks = torch.arange(score.shape[1], device=score.device)
    chosen = torch.zeros_like(candidates)
    return chosen.scatter_(1, order, ranks < k[:, None]) & candidates


def best(
    score: Float[Tensor, "batch rows"], candidates: Bool[Tensor, "batch rows"]
) -> Bool[Tensor, "batch rows"]:
    """The single best candidate of each row; nothing where a row has no candidate."""
    if score.shape[1] == 0:
        return candidates
    index = score.masked_fill(~candidates, -torch.inf).argmax(dim=-1, keepdim=True)
    return torch.zeros_like(candidates).scatter_(1, index, True) & candidates


def at_least(
    score: Float[Tensor, "batch rows"],
    candidates: Bool[Tensor, "batch rows"],
    threshold: float | Float[Tensor, "batch rows"],
) -> Bool[Tensor, "batch rows"]:
    """Fast-dLLM's threshold rule: the best candidate, and all with score >= threshold."""
    return best(score, candidates) | (candidates & (score >= threshold))

"""Scores of proposed tokens: dtype, source and tie order of every confidence in one place.

Ties are broken by position, ascending, which differs from the official codes' unstable top-k on
exact ties only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


ConfDtype = Literal["float64", "float32", "model"]
_DTYPES = {"float64": torch.float64, "float32": torch.float32}

_BUFFER = {True: 2**21, False: 2**27}
"""Bytes of scores computed at a time: on the CPU, elsewhere."""
_SPAN, _LARGE = 512, 2**13
"""Tokens of which the largest is found at once, in vocabularies of at least `_LARGE`."""


def cast(logits: Float[Tensor, "*axes vocab"], dtype: ConfDtype) -> Float[Tensor, "*axes vocab"]:
    """Logits in the dtype in which the softmax is taken; `model` leaves them."""
    return logits.to(_DTYPES.get(dtype, logits.dtype))


def highest(
    logits: Float[Tensor, "*axes vocab"],
) -> tuple[Float[Tensor, "*axes"], Int[Tensor, "*axes"]]:
    """Largest logit and its token; the lowest id wins exact ties."""
    if logits.shape[-1] < _LARGE:
        if logits.is_cpu and logits.dtype is torch.float32:
            # numpy's takes a tenth of the time.
            token = torch.from_numpy(logits.detach().numpy().argmax(axis=-1))
            return logits.gather(-1, token[..., None]).squeeze(-1), token
        return tuple(logits.max(dim=-1))  # type: ignore[return-value]
    value, span = _spans(logits).max(dim=-1)
    near, start = _span(logits, span)
    return value, start + near.argmax(dim=-1)


def confidence(
    logits: Float[Tensor, "batch rows vocab"],
    tokens: Int[Tensor, "batch rows"],
    dtype: ConfDtype,
) -> Float[Tensor, "batch rows"]:
    """Softmax probability of the given tokens, in [0, 1]."""
    (found,) = _by_row(
        lambda values, p, token: (p.gather(-1, token[..., None]).squeeze(-1),),
        logits,
        dtype,
        tokens,
    )
    return found


def top_confidence(
    logits: Float[Tensor, "batch rows vocab"], dtype: ConfDtype
) -> Float[Tensor, "batch rows"]:
    """`confidence` of each row's most likely token."""
    (found,) = _by_row(lambda values, p: (p.amax(dim=-1),), logits, dtype)
    return found


def margin(
    logits: Float[Tensor, "batch rows vocab"], dtype: ConfDtype
) -> Float[Tensor, "batch rows"]:
    """Difference of the two largest probabilities, in [0, 1]."""
    (found,) = _by_row(lambda values, p: (torch.sub(*_largest_two(p)),), logits, dtype)
    return found


def entropy(
    logits: Float[Tensor, "batch rows vocab"], dtype: ConfDtype
) -> Float[Tensor, "batch rows"]:
    """Entropy in nats, >= 0; tokens at -inf count as impossible."""
    (found,) = _by_row(lambda values, p: (_nats(values, p, p.amax(dim=-1)),), logits, dtype)
    return found


@dataclass(frozen=True)
class Summary:
    """What one pass over each row's softmax tells."""

    probability: Float[Tensor, "batch rows"]
    """As `top_confidence`; the others as the functions of their names."""
    margin: Float[Tensor, "batch rows"]
    entropy: Float[Tensor, "batch rows"]


def summary(logits: Float[Tensor, "batch rows vocab"], dtype: ConfDtype) -> Summary:
    def read(values: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        first, second = _largest_two(p)
        return first, first - second, _nats(values, p, first)

    return Summary(*_by_row(read, logits, dtype))


def _largest_two(
    p: Float[Tensor, "*axes vocab"],
) -> tuple[Float[Tensor, "*axes"], Float[Tensor, "*axes"]]:
    if p.shape[-1] < _LARGE:
        first, second = p.topk(2, dim=-1).values.unbind(dim=-1)
        return first, second
    spans = _spans(p)
    first, span = spans.max(dim=-1)
    near, _ = _span(p, span)
    others = spans.scatter(-1, span[..., None], 0).amax(dim=-1)
    return first, near.topk(2, dim=-1).values[..., 1].maximum(others)


def _nats(
    values: Float[Tensor, "*axes vocab"],
    p: Float[Tensor, "*axes vocab"],
    first: Float[Tensor, "*axes"],
) -> Float[Tensor, "*axes"]:
    """-ln p1 - sum p (l - l1), where p1 (`first`) and l1 are the largest: no logarithm per
    token."""
    shifted = values - values.amax(dim=-1, keepdim=True)
    # Impossible tokens are 0 * -inf.
    return (-first.log() - p.mul_(shifted).nansum(dim=-1)).clamp_(min=0)


def _by_row(
    read: Callable[..., tuple[Tensor, ...]],
    logits: Float[Tensor, "*axes vocab"],
    dtype: ConfDtype,
    *beside: Shaped[Tensor, "*axes"],
) -> tuple[Float[Tensor, "*axes"], ...]:
    """What `read` makes of each row's logits in the softmax's dtype, of their softmax and of what
    stands `beside`; it may write over the softmax.

    As many rows at a time as the processor's cache holds, in the same memory: a copy of all logits
    in float64 costs several times what is computed with it. Rows without logits (NaN) are then left
    out. The softmax is torch's: the exponentials of `Tensor.exp` take 1.7 times as long on a
    processor that is not Intel's.
    """
    of = _DTYPES.get(dtype, logits.dtype)
    vocab = logits.shape[-1]
    fitting = max(2, _BUFFER[logits.is_cpu] // (vocab * of.itemsize))
    if logits.numel() <= fitting * vocab:
        values = cast(logits, dtype)
        return read(values, values.softmax(dim=-1), *beside)
    every, rows = logits.flatten(0, -2), [value.flatten() for value in beside]
    known = (~every[:, 0].isnan()).nonzero()[:, 0].cpu()
    # Shared out evenly: a row on its own would be summed in another order than beside others.
    parts = known.tensor_split(max(1, -(-len(known) // fitting)))
    values, p = logits.new_empty(2, len(parts[0]), vocab, dtype=of)
    found: list[Tensor] = []
    for part in parts:
        n, first = len(part), int(part[0]) if len(part) else 0
        # One stretch of rows is read where it lies.
        stretch = n and int(part[-1]) - first < n
        values[:n].copy_(every[first : first + n] if stretch else every[part])
        torch.softmax(values[:n], dim=-1, out=p[:n])
        told = read(values[:n], p[:n], *(value[part] for value in rows))
        found = found or [one.new_full((len(every),), torch.nan) for one in told]
        for all_rows, own in zip(found, told, strict=True):
            all_rows[part] = own
    return tuple(all_rows.view(logits.shape[:-1]) for all_rows in found)


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
    return with_best(torch.zeros_like(candidates), score, candidates)


def with_best(
    chosen: Bool[Tensor, "batch rows"],
    score: Float[Tensor, "batch rows"],
    candidates: Bool[Tensor, "batch rows"],
) -> Bool[Tensor, "batch rows"]:
    """The chosen candidates of each row, and its best one."""
    if score.shape[1] == 0:
        return candidates
    index = score.where(candidates, -torch.inf).argmax(dim=-1, keepdim=True)
    return chosen.scatter(1, index, True) & candidates


def at_least(
    score: Float[Tensor, "batch rows"],
    candidates: Bool[Tensor, "batch rows"],
    threshold: float | Float[Tensor, "batch rows"],
) -> Bool[Tensor, "batch rows"]:
    """Fast-dLLM's threshold rule: the best candidate, and all with score >= threshold."""
    return with_best(score >= threshold, score, candidates)

"""Scores of proposed tokens: dtype, source and tie order of every confidence in one place.

Ties are broken by position, ascending, which differs from the official codes' unstable top-k on
exact ties only.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


ConfDtype = Literal["float64", "float32", "model"]
_DTYPES = {"float64": torch.float64, "float32": torch.float32}


def cast(logits: Float[Tensor, "*axes vocab"], dtype: ConfDtype) -> Float[Tensor, "*axes vocab"]:
    """Logits in the dtype in which the softmax is taken; `model` leaves them."""
    return logits if dtype == "model" else logits.to(_DTYPES[dtype])


def confidence(
    logits: Float[Tensor, "batch rows vocab"],
    tokens: Int[Tensor, "batch rows"],
    dtype: ConfDtype,
) -> Float[Tensor, "batch rows"]:
    """Softmax probability of the given tokens, in [0, 1].

    Computed as exp(l - max) / sum(exp(l - max)), as softmax does, without storing all
    probabilities.
    """
    logits = cast(logits, dtype)
    if dtype == "model" and logits.dtype != torch.float32:
        return logits.softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    chosen = shifted.gather(-1, tokens[..., None]).squeeze(-1).exp()
    return chosen / shifted.exp_().sum(dim=-1)


def top_confidence(
    logits: Float[Tensor, "batch rows vocab"],
    top: Float[Tensor, "batch rows"],
    dtype: ConfDtype,
) -> Float[Tensor, "batch rows"]:
    """`confidence` of each row's most likely token, whose logit is `top`."""
    logits = cast(logits, dtype)
    if dtype == "model" and logits.dtype != torch.float32:
        return logits.softmax(dim=-1).amax(dim=-1)
    return (logits - top.to(logits.dtype)[..., None]).exp_().sum(dim=-1).reciprocal_()


def margin(
    logits: Float[Tensor, "batch rows vocab"], dtype: ConfDtype
) -> Float[Tensor, "batch rows"]:
    """Difference of the two largest probabilities, in [0, 1]."""
    logits = cast(logits, dtype)
    top = logits.topk(2, dim=-1).values
    return (top - logits.logsumexp(dim=-1, keepdim=True)).exp_().diff(dim=-1).squeeze(-1).neg_()


def entropy(
    logits: Float[Tensor, "batch rows vocab"], dtype: ConfDtype
) -> Float[Tensor, "batch rows"]:
    """Entropy in nats, >= 0; tokens at -inf count as impossible."""
    logits = cast(logits, dtype)
    # ln sum e^s - sum s e^s / sum e^s with s = l - max: one exponential per token, no logarithm.
    # The bound on s keeps 0 * -inf out.
    shifted = (logits - logits.amax(dim=-1, keepdim=True)).clamp_(min=-1e4)
    weight = shifted.exp()
    total = weight.sum(dim=-1)
    return (total.log() - weight.mul_(shifted).sum(dim=-1) / total).clamp_(min=0)


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

"""Speculative sampling: drafts of one distribution become exact samples of another.

Leviathan et al. (arXiv 2211.17192) and Chen et al. (arXiv 2302.01318); DEER (arXiv 2512.15176, Eq.
5-6) drafts by diffusion. `p` are the target's probabilities, each row given the drafts before it;
`q` those that the drafts were drawn from. A row without a draft has q = 0: it is never accepted and
its residual is p itself, so that the token behind the last draft needs no rule of its own. One-hot
p and q are greedy decoding. Nowhere must q cover p: what is never drafted comes from the residual.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.decision import Decision
from dllm.step.prediction import View
from dllm.step.sampler import Proposer
from samplers.parts.proposers import Greedy, Gumbel


def acceptance(
    p: Float[Tensor, "*rows vocab"],
    q: Float[Tensor, "*rows vocab"],
    drafted: Int[Tensor, "*rows"],
) -> Float[Tensor, "*rows"]:
    """min(1, p / q) of each drafted token; 0 where none was (-1)."""
    at = drafted.clamp(min=0)[..., None]
    ratio = (p.gather(-1, at) / q.gather(-1, at))[..., 0].clamp(max=1)
    return ratio.where(drafted >= 0, 0)


def accepted(
    p: Float[Tensor, "batch rows vocab"],
    q: Float[Tensor, "batch rows vocab"],
    drafted: Int[Tensor, "batch rows"],
    uniform: Float[Tensor, "batch rows"],
) -> Int[Tensor, "batch"]:
    """Leading drafts that stand, by one draw of U[0, 1) per row; the first row beyond them gets a
    token of its `residual`."""
    # The paper's u <= alpha would accept at u = 0 what the target rules out; [0, 1) holds 0.
    stands = uniform < acceptance(p, q, drafted)
    return stands.long().cumprod(dim=-1).sum(dim=-1)


def residual(
    p: Float[Tensor, "*rows vocab"], q: Float[Tensor, "*rows vocab"]
) -> Float[Tensor, "*rows vocab"]:
    """max(0, p - q), normalised: what a rejected row is drawn from; p where nothing is left of
    it, which no rejection comes to but by rounding."""
    rest = (p - q).clamp(min=0)
    mass = rest.sum(dim=-1, keepdim=True)
    return (rest / mass).where(mass > 0, p)


def drawn(
    probability: Float[Tensor, "*rows vocab"], uniform: Float[Tensor, "*rows"]
) -> Int[Tensor, "*rows"]:
    """The token at `uniform` of the cumulated probability; never one of probability 0."""
    cumulated = probability.cumsum(dim=-1)
    total = cumulated[..., -1]
    # Rounding may bring u * total up to total, behind which no token begins.
    below = torch.nextafter(total, torch.zeros_like(total))
    at = torch.minimum(uniform * total, below)
    return (cumulated <= at[..., None]).sum(dim=-1)


def allowed(view: View, drafted: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows vocab"]:
    """The target's logits of what a constraint lets stand, each row's with the drafts before it in
    place, up to the first draft that it refuses: taken back one by one, drafts and residual would
    not be those of the target under the constraint."""
    logits = view.logits.clone()
    for row, legality in enumerate(view.canvas.legality):
        if legality is None:
            continue
        canvas = view.canvas.take(row)
        for index, position in enumerate(view.positions[row].tolist()):
            known = canvas.allowed(0, position) if position >= 0 else None
            if known is not None:
                refused = torch.from_numpy(~known).to(logits.device)
                logits[row, index, : len(known)].masked_fill_(refused, -torch.inf)
            draft = int(drafted[row, index])
            if draft < 0 or logits[row, index, draft].isneginf():
                break
            canvas.tokens[0, position] = draft
    return logits


def verified(
    view: View,
    p: Float[Tensor, "batch rows vocab"],
    q: Float[Tensor, "batch rows vocab"],
    drafted: Int[Tensor, "batch rows"],
) -> Decision:
    """The drafts that stand and one token behind them, drawn anew; `view` is the target's."""
    draws = view.uniform(), view.uniform()
    count = accepted(p, q, drafted, draws[0])
    number = torch.arange(drafted.shape[1], device=view.device)
    stands = view.candidates & (number < count[:, None])
    replaced = view.candidates & (number == count[:, None])
    fresh = drawn(residual(p, q), draws[1])
    tokens = fresh.where(replaced, drafted.where(stands, view.top[1]))
    score = p.gather(-1, tokens[..., None])[..., 0]
    # What was verified stood in the canvas that the target read: nobody else knows its probability.
    raw = view.logits if view.unrefused is None else view.unrefused
    probability = scores.confidence(raw, tokens, "float32").double()
    return Decision(
        commit=stands | replaced,
        tokens=tokens,
        score=score.nan_to_num(),
        probability=probability.where(stands | replaced, torch.nan),
        marks={"accepted": stands, "rejected": replaced & (drafted >= 0)},
    )


def check_proposer(proposer: Proposer) -> None:
    """Raises `ConfigError` for one that draws from no distribution."""
    if not isinstance(proposer, Greedy | Gumbel):
        raise ConfigError(
            f"sampler.proposer={type(proposer).__name__} has no probabilities to verify drafts by: "
            "use greedy, gumbel or filtered"
        )

"""What a decision had before it, for the trace: the most probable tokens of each predicted position
and the branches that were compared. Costs a top-k per forward, so that it is kept on request."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from dllm.step.decision import RowChanges
from dllm.step.prediction import View
from dllm.step.trace import Considered


def considered(view: View, rows: Sequence[RowChanges], count: int) -> list[Considered]:
    """Per sequence; `view` holds the forward's own logits, of which the adopted branch's are read.

    Probabilities are float32 softmax to four digits; equal ones come in no certain order.
    """
    logits = view.logits
    if view.branch_logits is not None:
        adopted = torch.tensor([changes.adopt for changes in rows], device=view.device)
        logits = view.branch_logits[torch.arange(len(rows), device=view.device), adopted]
    start = view.column(view.canvas.prompt_length)
    wanted = view.fresh & (view.positions >= start)
    chosen = logits[wanted].float()
    top = chosen.topk(min(count, chosen.shape[-1]), dim=-1)
    probable = (top.values - chosen.logsumexp(dim=-1, keepdim=True)).exp()
    found = []
    taken = 0
    for b, changes in enumerate(rows):
        positions = (view.positions[b, wanted[b]] - start[b]).tolist()
        own = slice(taken, taken + len(positions))
        taken = own.stop
        likely = [[round(p, 4) for p in values] for values in probable[own].tolist()]
        alternatives = list(zip(positions, top.indices[own].tolist(), likely, strict=True))
        branches = [] if view.branches is None else _written(view, b, view.branches[b])
        found.append(Considered(alternatives, branches, changes.adopt if branches else None))
    return found


def _written(view: View, b: int, branches: Int[Tensor, "branches canvas"]) -> list:
    """(position, token) of what each branch of a sequence holds besides its canvas."""
    canvas = view.canvas
    start, length = int(canvas.prompt_length[b]), int(canvas.length[b])
    own = torch.as_tensor(canvas.tokens[b, start:length], device=branches.device)
    found = []
    for branch in branches[:, start:length]:
        # A branch that the sequence lacks is -1 throughout.
        at = ((branch != own) & (branch >= 0)).nonzero()[:, 0]
        found.append(list(zip(at.tolist(), branch[at].tolist(), strict=True)))
    return found

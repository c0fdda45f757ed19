"""How probable the model held what was committed: enough to count the bits of a run."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from dllm.step.decision import RowChanges
from dllm.step.prediction import View
from dllm.step.transfer import sent_together


def committed_probabilities(
    view: View, positions: Int[np.ndarray, "batch rows"], rows: Sequence[RowChanges]
) -> list[list[float | None]]:
    """Raw softmax probability in float32 of every committed token, per sequence in the order of its
    commits: before temperature, filters, guidance, history and vetoes (`view`: the forward's own
    logits, `positions`: its rows' on the host).

    Read from the adopted branch, or from the first one in which the position is masked. None where
    none is (a token that was put into every branch) and the sampler has not said what it read
    before, or where the position was not asked for (a constraint's rewriting).
    """
    found: list[list[float | None]] = []
    of, at, tokens = [], [], []
    logits, branches, count = view.logits, None, 1
    if view.branches is not None and view.branch_logits is not None:
        logits, branches = view.branch_logits, view.branches.cpu().numpy()
        count = branches.shape[1]
    *_, width, vocab = logits.shape
    for b, changes in enumerate(rows):
        row_of = dict(zip(positions[b].tolist(), range(width), strict=True))
        commits = changes.commit_positions.tolist()
        found.append([changes.probabilities.get(position) for position in commits])
        written = zip(commits, changes.commit_tokens.tolist(), strict=True)
        for n, (position, token) in enumerate(written):
            if found[b][n] is not None or position not in row_of:
                continue
            branch: int | None = 0
            if branches is not None:
                branch = _masked_branch(branches[b], changes.adopt, position, view.canvas.mask_id)
            if branch is not None:
                of.append((b, n))
                at.append((b * count + branch) * width + row_of[position])
                tokens.append(token)
    if at:
        read, token = sent_together([np.array(at), np.array(tokens)[:, None]], view.device)
        p = logits.reshape(-1, vocab).index_select(0, read).softmax(dim=-1, dtype=torch.float32)
        for (b, n), (value,) in zip(of, p.gather(1, token).tolist(), strict=True):
            # Nine digits are a float32.
            found[b][n] = float(f"{value:.9g}")
    return found


def _masked_branch(
    branches: Int[np.ndarray, "branches canvas"], adopted: int, position: int, mask_id: int
) -> int | None:
    masked = branches[:, position] == mask_id
    # Where -1 is the mask, a branch that the sequence lacks begins with it.
    masked &= branches[:, 0] >= 0
    if masked[adopted]:
        return adopted
    return int(masked.argmax()) if masked.any() else None

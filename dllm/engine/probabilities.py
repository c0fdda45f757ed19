"""How probable the model held what was committed: enough to count the bits of a run."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from dllm.step.decision import RowChanges
from dllm.step.prediction import View


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
    at, of = [], []
    logits, count = view.logits, 1
    branches = None
    if view.branches is not None and view.branch_logits is not None:
        logits, count = view.branch_logits, view.branches.shape[1]
        branches = view.branches.cpu().numpy()
    width = positions.shape[1]
    for b, changes in enumerate(rows):
        row_of = {position: row for row, position in enumerate(positions[b].tolist())}
        commits = changes.commit_positions.tolist()
        found.append([changes.probabilities.get(position) for position in commits])
        for n, position in enumerate(commits):
            if found[b][n] is not None or position not in row_of:
                continue
            branch: int | None = 0
            if branches is not None:
                branch = _masked_branch(branches[b], changes.adopt, position, view.canvas.mask_id)
            if branch is not None:
                of.append((b, n))
                at.append((b * count + branch) * width + row_of[position])
    if at:
        tokens = [int(rows[b].commit_tokens[n]) for b, n in of]
        read, token = view.positions.new_tensor((at, tokens))
        p = logits.reshape(-1, logits.shape[-1]).index_select(0, read)
        p = p.softmax(dim=-1, dtype=torch.float32).gather(1, token[:, None])[:, 0]
        for (b, n), value in zip(of, p.tolist(), strict=True):
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

"""How probable the model held what was committed: enough to count the bits of a run."""

from collections.abc import Sequence

import numpy as np

from dllm.step import scores
from dllm.step.decision import RowChanges
from dllm.step.prediction import View


def committed_probabilities(view: View, rows: Sequence[RowChanges]) -> list[list[float | None]]:
    """Raw softmax probability in float32 of every committed token, per sequence in the order of its
    commits: before temperature, filters, guidance, history and vetoes (`view`: the forward's own
    logits).

    Read from the adopted branch, or from the first one in which the position is masked. None where
    none is (a token that was put into every branch) and the sampler has not said what it read
    before, or where the position was not asked for (a constraint's rewriting).
    """
    found: list[list[float | None]] = []
    at, of, token = [], [], []
    positions = view.positions.tolist()
    branches = None if view.branches is None else view.branches.cpu().numpy()
    for b, changes in enumerate(rows):
        row_of = {position: row for row, position in enumerate(positions[b])}
        commits = changes.commit_positions.tolist()
        found.append([changes.probabilities.get(position) for position in commits])
        for n, position in enumerate(commits):
            branch = _masked_branch(branches, b, changes.adopt, position, view.canvas.mask_id)
            if found[b][n] is None and branch is not None and position in row_of:
                of.append((b, n))
                at.append((b, branch, row_of[position]))
                token.append(int(changes.commit_tokens[n]))
    if at:
        b, branch, row = view.positions.new_tensor(at).unbind(dim=1)
        logits = view.logits[:, None] if view.branch_logits is None else view.branch_logits
        chosen = logits[b, branch, row][None]
        tokens = view.positions.new_tensor(token)[None]
        p = scores.confidence(chosen, tokens, "float32")[0].tolist()
        for (sequence, n), value in zip(of, p, strict=True):
            # Nine digits are a float32.
            found[sequence][n] = float(f"{value:.9g}")
    return found


def _masked_branch(
    branches: np.ndarray | None, b: int, adopted: int, position: int, mask_id: int
) -> int | None:
    if branches is None:
        return 0
    masked = branches[b, :, position] == mask_id
    # Where -1 is the mask, a branch that the sequence lacks begins with it.
    masked &= branches[b, :, 0] >= 0
    if masked[adopted]:
        return adopted
    return int(masked.argmax()) if masked.any() else None

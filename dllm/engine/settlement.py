"""What was decided for one sequence once nobody objects any more."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from dllm.step.decision import RowChanges
from dllm.step.trace import Review


@dataclass
class Settlement:
    changes: RowChanges
    updates: dict[str, Tensor] = field(default_factory=dict)
    """The sequence's row of each state field that the decision replaces."""
    review: Review | None = None
    """What the constraint said; None = it was not asked."""
    failure: str | None = None
    """Why the constraint can't be satisfied."""
    after: np.ndarray | None = None
    """The sequence as the constraint has accepted it."""

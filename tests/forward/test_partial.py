"""Which rows a partial forward recomputes."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dllm.forward.partial import PartialForward


def changed(fresh: Tensor, stored: Tensor, count: int) -> list[int]:
    """Rows that one layer picks of a sequence whose values were `stored`."""
    rows = fresh.shape[2]
    run: Any = object.__new__(PartialForward)
    run.width = rows
    run.partial = SimpleNamespace(
        count=torch.tensor([count]), pool=torch.ones(1, rows, dtype=torch.bool)
    )
    return run._changed(fresh, stored.clone())[0].nonzero()[:, 0].tolist()


def test_rounding_does_not_rank_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    stored = torch.randn(1, 2, 12, 16, generator=generator)
    fresh = stored.clone()
    fresh[:, :, [7, 9]] += torch.randn(1, 2, 2, 16, generator=generator)
    expected = changed(fresh, stored, 4)
    # The two that moved, then the leftmost of those that did not.
    assert expected == [0, 1, 7, 9]
    for _ in range(20):
        noise = 1 + 1e-6 * torch.randn(fresh.shape, generator=generator)
        assert changed(fresh * noise, stored, 4) == expected

"""Layers that recompute the rows whose values changed most."""

from dataclasses import replace

import pytest
import torch
from tiny_decoding import SPEC
from walk import Walk

from dllm.forward.partial import PartialForward


@pytest.mark.parametrize(("count", "expected"), [(2, [1, 3]), (4, [1, 3, 5, 6]), (0, [])])
def test_least_similar_values(count: int, expected: list[int]) -> None:
    """Cosines 1, 0, 1, -1, 1, .707, .995, 1."""
    walk = Walk("cache=dllm_cache", masks=5)
    partial = walk.plan().partial
    assert partial is not None
    partial.pool[:] = True
    partial.count[:] = count
    plan = walk.plan()
    run = PartialForward(replace(plan, partial=partial), walk.store, SPEC.d_model)
    turn = torch.tensor([1, 0, 1, -1, 1, 0.707, 0.995, 1]).acos()
    stored = torch.zeros(1, 1, 8, 2)
    stored[..., 0] = 1
    fresh = torch.stack((turn.cos(), turn.sin()), dim=-1)[None, None]
    chosen = run._changed(fresh, stored)
    assert chosen[0].nonzero().flatten().tolist() == expected
    # All values of the pool are replaced, unless nothing is to be recomputed.
    assert torch.equal(stored, fresh) == (count > 0)

"""Attention rollout."""

import pytest
from tiny_decoding import random_model
from walk import Walk

from dllm.forward.predictor import Predictor


def test_rollout_of_a_whole_forward() -> None:
    """Every layer's rows sum to one, so do the columns to the number of rows."""
    walk = Walk("cache=d2cache", masks=5)
    plan = walk.plan()
    Predictor(random_model()).predict(plan, walk.store)
    assert plan.taps is not None and plan.taps.influence is not None
    assert float(plan.taps.influence.sum()) == pytest.approx(8, abs=1e-4)

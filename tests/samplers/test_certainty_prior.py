"""Worked examples of the certainty prior."""

import pytest
from tiny_decoding import canvas_of
from written import DECIDED, one, rule

from dllm.step.density import certainty_density


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        ({0, 1, 7}, (0.941, 0.700, 0.300, 0.059, 0.009, 0.059, 0.300, 0.700)),
        ({0, 1}, (0.941, 0.700, 0.300, 0.059, 0.005, 0.000, 0.0, 0.0)),
    ],
)
def test_certainty_prior(decided: set[int], expected: tuple[float, ...]) -> None:
    canvas = canvas_of([DECIDED if i in decided else 0 for i in range(8)])
    density = certainty_density(canvas, 1.0)[0]
    assert density[3:11].tolist() == pytest.approx(expected, abs=6e-4)
    assert not density[:3].any()


def test_certainty_prior_ranks_and_thresholds_the_product() -> None:
    near = rule("certainty_prior", sigma=2.0, **{"region.block_length": "null"})
    assert one(near, (0.7, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.95)) == {0}
    free = rule("certainty_prior", sigma=2.0, threshold=0.0, **{"region.block_length": "null"})
    assert one(free, (0.7, 0.5, 0.5, 0.95)) == {0, 1, 2, 3}

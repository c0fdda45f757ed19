"""Certainty density: decided positions smoothed over their neighbours."""

import pytest
from tiny_decoding import canvas_of

from dllm.step.density import certainty_density


@pytest.mark.parametrize(
    ("decided", "sigma", "expected"),
    [
        ({0, 1}, 2.0, (0.7758, 0.5997, 0.4003, 0.2242, 0.1032, 0.0385, 0.0115, 0.0027)),
        (set(), 2.0, (0.4003, 0.2242, 0.1032, 0.0385, 0.0115, 0.0027, 0.0005, 0.0001)),
        ({1, 6, 7}, 2.0, (0.5790, 0.4352, 0.3178, 0.2627, 0.3005, 0.4300, 0.6090, 0.7781)),
        ({0, 1}, 10.0, (0.3681, 0.3548, 0.3389, 0.3207, 0.3007, 0.2793, 0.2571, 0.2345)),
    ],
)
def test_certainty_density(decided: set[int], sigma: float, expected: tuple[float, ...]) -> None:
    canvas = canvas_of([9 if i in decided else 0 for i in range(8)], prompt=(5, 6, 7))
    assert certainty_density(canvas, sigma)[0, 3:11] == pytest.approx(expected, abs=6e-5)

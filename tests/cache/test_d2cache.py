"""d2Cache: the nucleus of attended rows, and gaps that are filled."""

import numpy as np
import pytest

from dllm.cache.d2cache import inflate, nucleus


@pytest.mark.parametrize(("p", "expected"), [(0.1, [0]), (0.5, [0]), (0.75, [0, 1])])
def test_nucleus(p: float, expected: list[int]) -> None:
    share = np.array([0.4, 0.3, 0.2, 0.1])
    assert nucleus(share, p, np.ones(4, dtype=bool)).nonzero()[0].tolist() == expected


@pytest.mark.parametrize(
    ("width", "expected"),
    [(4, [2, 3, 4, 5, 6, 11, 12, 13]), (3, [2, 6, 11, 12, 13]), (0, [2, 6, 11, 13])],
)
def test_inflate(width: int, expected: list[int]) -> None:
    selected = np.isin(np.arange(16), [2, 6, 11, 13])
    assert inflate(selected, width).nonzero()[0].tolist() == expected

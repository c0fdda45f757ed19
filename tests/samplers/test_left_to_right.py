"""Worked examples of autoregressive order."""

import pytest
from written import one, rule


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.9, {1, 2}), (0.99, {1}), (0.0, {1, 2, 3, 4})]
)
def test_ar_order(threshold: float, expected: set[int]) -> None:
    row = (None, 0.95, 0.92, 0.5, 0.97, None, 0.99)
    assert one(rule("ar", threshold=threshold), row) == expected

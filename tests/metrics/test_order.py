"""Decoding order by hand."""

import pytest

from dllm.metrics.order import DecodingOrder, decoding_order


def test_left_to_right_and_back() -> None:
    assert decoding_order([0, 1, 2, 3]) == DecodingOrder(pytest.approx(1.0), pytest.approx(1.0))
    assert decoding_order([3, 2, 1, 0]) == DecodingOrder(pytest.approx(-1.0), pytest.approx(-1.0))


def test_positions_committed_together_are_ties() -> None:
    # 5 concordant pairs, one tie in the steps: tau-b = 5 / sqrt(6 * 5)
    assert decoding_order([0, 0, 1, 2]).kendall == pytest.approx(5 / 30**0.5)


def test_padding_can_be_left_out() -> None:
    steps = [0, 1, 2, 0, 0, 0]
    assert decoding_order(steps, effective=3).kendall == pytest.approx(1.0)
    assert decoding_order(steps).kendall < 0.5
    assert decoding_order([0, 1, -1, 2]).kendall == pytest.approx(1.0)


def test_no_order_to_speak_of() -> None:
    assert decoding_order([]) == decoding_order([4]) == decoding_order([2, 2, 2])
    assert decoding_order([2, 2, 2]) == DecodingOrder(None, None)

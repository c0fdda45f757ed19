"""What a focused row hides, what a late row leaves, and that each row weighs one in expectation."""

import pytest
import torch

from dllm.errors import ConfigError
from dllm.training.focused_noise import FocusedNoise


MASK, DIGITS = 0, (5, 6)
ROWS, LENGTH, PROMPT = 4000, 12, 3


def batch(*, focused: float, late: float, with_digits: bool = True):
    row = [9, 5, 8, 5, 7, 6, 7, 5, 7, 7, 1, 1] if with_digits else [9, 5, 8] + [7] * 9
    tokens = torch.tensor([row] * ROWS)
    noise = FocusedNoise(focused=focused, tokens=DIGITS, late=late)
    prompts = torch.full((ROWS,), PROMPT)
    return tokens, noise(tokens, prompts, MASK, torch.Generator().manual_seed(0))


def test_a_focused_row_hides_the_given_tokens_of_the_response_only() -> None:
    tokens, made = batch(focused=1.0, late=0.0)
    hidden = made.tokens != tokens
    assert hidden.any(dim=0).nonzero().squeeze(1).tolist() == [3, 5, 7]
    assert made.targets.tolist() == tokens.flatten()[made.masked].tolist()
    assert set(made.targets.tolist()) == set(DIGITS)


def test_a_row_without_them_is_an_ordinary_one() -> None:
    tokens, made = batch(focused=1.0, late=0.0, with_digits=False)
    hidden = made.tokens != tokens
    assert hidden[:, PROMPT:].any(dim=0).all() and not hidden[:, :PROMPT].any()


@pytest.mark.parametrize("focused", [0.0, 0.5, 1.0])
def test_every_row_hides_something_and_weighs_one(focused: float) -> None:
    _, made = batch(focused=focused, late=0.5)
    of_row = torch.zeros(ROWS).index_add(0, made.masked // LENGTH, made.weights)
    assert of_row.tolist() == pytest.approx([1.0] * ROWS)


def test_late_rows_hide_a_third_where_others_hide_half() -> None:
    half = 1 / 2 / (LENGTH - PROMPT)  # of a token, by which rounding up exceeds the share
    for late, expected in ((0.0, 1 / 2 + half), (1.0, 1 / 3 + half)):
        _, made = batch(focused=0.0, late=late)
        share = len(made.targets) / (ROWS * (LENGTH - PROMPT))
        assert share == pytest.approx(expected, abs=0.01)


def test_the_same_generator_gives_the_same_batch() -> None:
    (_, first), (_, again) = (batch(focused=0.5, late=0.5) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.weights, again.weights)


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective.late=2 is outside \[0, 1\]"):
        FocusedNoise(focused=0, tokens=DIGITS, late=2)

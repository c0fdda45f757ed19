"""Filters of a distribution: which tokens stay."""

import pytest
import torch

from samplers.parts.filters import best_tokens, within_mass


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [(row > -torch.inf).nonzero().flatten().tolist() for row in logits]


P = torch.tensor([[[0.1, 0.4, 0.2, 0.3], [0.3, 0.1, 0.5, 0.1]]])


@pytest.mark.parametrize(
    ("mass", "expected"),
    [
        (0.05, [[1], [2]]),
        (0.6, [[1, 3], [0, 2]]),
        (0.75, [[1, 2, 3], [0, 2]]),
        (0.95, [[0, 1, 2, 3], [0, 1, 2, 3]]),
    ],
)
def test_the_token_that_crosses_the_mass_stays(mass: float, expected: list[list[int]]) -> None:
    logits = P.log()
    found = within_mass(logits, mass)
    assert kept(found[0]) == expected
    assert torch.equal(found, logits.where(found > -torch.inf, -torch.inf))


def test_a_mass_that_is_just_reached() -> None:
    """Two tokens of one half each: the second one stays, as the first does not exceed the mass."""
    halves = torch.tensor([[[0.0, -torch.inf, 0.0]]])
    assert kept(within_mass(halves, 0.5)[0]) == [[0, 2]]
    assert len(kept(within_mass(halves, 0.4999)[0])[0]) == 1


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [0, 1, 2]), (3, [0, 1, 2])])
def test_what_equals_the_last_of_the_best_stays(count: int, expected: list[int]) -> None:
    logits = torch.tensor([[[3.0, 2.0, 2.0, 1.0]]])
    assert kept(best_tokens(logits, count)[0]) == [expected]


def test_nothing_to_filter() -> None:
    logits = P.log()
    assert within_mass(logits, None) is within_mass(logits, 1) is logits
    assert best_tokens(logits, None) is best_tokens(logits, 4) is logits

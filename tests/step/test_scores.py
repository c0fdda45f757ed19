"""Confidence and rankings by hand: dtypes, ties, equality, empty rows."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dllm.step import scores


def logs(*probabilities: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([[list(probabilities)]], dtype=torch.float64).log().to(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "model"])
def test_confidence_is_the_softmax_probability(dtype: scores.ConfDtype) -> None:
    logits = logs(0.5, 0.25, 0.125, 0.125, dtype=torch.float32)
    for token, expected in enumerate((0.5, 0.25, 0.125, 0.125)):
        value = scores.confidence(logits, torch.tensor([[token]]), dtype)
        assert value.item() == pytest.approx(expected, rel=1e-6)
    top = scores.top_confidence(logits, dtype)
    assert top.item() == pytest.approx(0.5, rel=1e-6)


def test_the_dtype_is_that_of_the_softmax() -> None:
    logits = logs(0.9, 0.1, dtype=torch.bfloat16)
    token = torch.tensor([[0]])
    for name, dtype in (
        ("float64", torch.float64),
        ("float32", torch.float32),
        ("model", torch.bfloat16),
    ):
        assert scores.confidence(logits, token, name).dtype == dtype
        assert scores.top_confidence(logits, name).dtype == dtype
    assert torch.equal(scores.confidence(logits, token, "model"), logits.softmax(-1).amax(-1))


def test_logits_are_left_as_they_were() -> None:
    logits = logs(0.7, 0.2, 0.1)
    before = logits.clone()
    scores.confidence(logits, torch.tensor([[1]]), "float64")
    scores.top_confidence(logits, "float64")
    scores.summary(logits, "float64")
    assert torch.equal(logits, before)


def test_large_and_forbidden_logits_do_not_overflow() -> None:
    logits = torch.tensor([[[1e4, 1e4, -math.inf]]])
    assert scores.confidence(logits, torch.tensor([[1]]), "float32").item() == 0.5
    assert scores.confidence(logits, torch.tensor([[2]]), "float32").item() == 0.0


def plain(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Largest probability, margin and entropy, read off the whole distribution."""
    p = logits.double().softmax(dim=-1)
    two = p.topk(2, dim=-1).values
    return two[..., 0], two[..., 0] - two[..., 1], -torch.special.xlogy(p, p).sum(dim=-1)


@pytest.mark.parametrize("vocabulary", [854, 16 * 512 + 3, 40_000])
@pytest.mark.parametrize("rows", [1, 5, 37])
def test_scores_do_not_depend_on_how_many_rows_are_computed_at_a_time(
    vocabulary: int, rows: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, rows, vocabulary, generator=generator)
    logits[:, :, 5] = -math.inf
    logits[1, rows // 2 :] = math.nan  # rows that no forward has computed
    probability, difference, nats = plain(logits)
    token, summary = scores.highest(logits)[1], scores.summary(logits, "float64")
    expected = (
        (scores.top_confidence(logits, "float64"), probability),
        (scores.confidence(logits, token, "float64"), probability),
        (scores.margin(logits, "float64"), difference),
        (scores.entropy(logits, "float64"), nats),
        (summary.probability, probability),
        (summary.margin, difference),
        (summary.entropy, nats),
    )
    for found, right in expected:
        torch.testing.assert_close(found, right, atol=1e-12, rtol=1e-9, equal_nan=True)


@pytest.mark.parametrize("vocabulary", [854, 16 * 512 + 3, 40_000])
def test_the_highest_logit_is_the_first_of_the_largest_ones(vocabulary: int) -> None:
    places = [(0,), (511, 512), (vocabulary - 1,), (vocabulary - 2, 3), (600, vocabulary - 1, 601)]
    logits = torch.zeros(1, len(places), vocabulary)
    for row, at in enumerate(places):
        logits[0, row, list(at)] = 2.0
        logits[0, row, 700] = 1.0
    value, token = scores.highest(logits)
    assert value.tolist() == [[2.0] * len(places)]
    assert token.tolist() == [[min(at) for at in places]]
    once = torch.tensor([len(at) == 1 for at in places])
    assert torch.equal(scores.margin(logits, "float64")[0] > 0, once)


def test_ties_go_to_the_lower_position() -> None:
    score = torch.tensor([[0.5, 0.9, 0.9, 0.5]])
    assert scores.rank_order(score).tolist() == [[1, 2, 0, 3]]
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    assert scores.best(score, everywhere).tolist() == [[False, True, False, False]]
    chosen = scores.top_k(score, everywhere, torch.tensor([3]))
    assert chosen.tolist() == [[True, True, True, False]]


def test_top_k_takes_candidates_only_and_at_most_all_of_them() -> None:
    score = torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.1, 0.2, 0.3]])
    candidates = torch.tensor([[False, True, True], [False, False, False], [True, True, True]])
    chosen = scores.top_k(score, candidates, torch.tensor([1, 2, 0]))
    assert chosen.tolist() == [[False, True, False], [False] * 3, [False] * 3]
    chosen = scores.top_k(score, candidates, torch.tensor([9, 9, 9]))
    assert torch.equal(chosen, candidates)


def test_threshold_rule_by_hand() -> None:
    score = torch.tensor([[0.97, 0.62, 0.93, 0.90, 0.55, 0.91]], dtype=torch.float64)
    everywhere = torch.ones(1, 6, dtype=torch.bool)

    def chosen(threshold: float, candidates: torch.Tensor = everywhere) -> list[int]:
        return scores.at_least(score, candidates, threshold)[0].nonzero().flatten().tolist()

    assert chosen(0.9) == [0, 2, 3, 5]  # equality commits
    assert chosen(0.95) == [0]
    assert chosen(0.99) == [0]  # nothing qualifies: the best
    assert chosen(0.9, torch.tensor([[False, True, True, False, True, True]])) == [2, 5]
    assert chosen(0.0) == [0, 1, 2, 3, 4, 5]
    assert chosen(0.0, torch.zeros(1, 6, dtype=torch.bool)) == []


def test_a_threshold_per_position() -> None:
    score = torch.tensor([[0.8, 0.8, 0.9]])
    limit = torch.tensor([[0.75, 0.85, 0.95]])
    chosen = scores.at_least(score, torch.ones(1, 3, dtype=torch.bool), limit)
    assert chosen.tolist() == [[True, False, True]]


def test_no_rows_at_all() -> None:
    score, candidates = torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)
    assert scores.best(score, candidates).shape == (2, 0)
    assert scores.at_least(score, candidates, 0.5).shape == (2, 0)
    assert scores.top_k(score, candidates, torch.tensor([1, 1])).shape == (2, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=1, max_size=8), st.data())
def test_a_row_is_ranked_alone_and_permutes(values: list[float], data: st.DataObject) -> None:
    candidates = data.draw(
        st.lists(st.booleans(), min_size=len(values), max_size=len(values)), "candidates"
    )
    count = data.draw(st.integers(0, 9), "k")
    score, open_rows = torch.tensor([values]), torch.tensor([candidates])
    alone = scores.top_k(score, open_rows, torch.tensor([count]))
    pair = scores.top_k(
        torch.cat((torch.rand_like(score), score)),
        torch.cat((~open_rows, open_rows)),
        torch.tensor([3, count]),
    )
    assert torch.equal(pair[1:], alone)
    assert alone.sum() == min(count, sum(candidates))
    taken = [v for v, chosen in zip(values, alone[0].tolist(), strict=True) if chosen]
    left = [
        v
        for v, chosen, free in zip(values, alone[0].tolist(), candidates, strict=True)
        if free and not chosen
    ]
    assert not taken or not left or min(taken) >= max(left)

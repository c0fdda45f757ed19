"""DEER's training batches: where answers are cut, what is hidden, how much it counts."""

import pytest
import torch

from dllm.training.drafting import Distillation, Refinement


SEPARATOR, MASK = 99, 0
TOKENS = torch.arange(10, 34).view(2, 12).repeat(40, 1)
PROMPTS = torch.tensor([3, 5]).repeat(40)


def drawn(objective, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    batch = objective(TOKENS, PROMPTS, MASK, generator)
    cut = (batch.tokens != SEPARATOR).sum(dim=1)
    return batch, cut


OBJECTIVES = [
    Distillation(separator=SEPARATOR, hidden="scattered"),
    Distillation(separator=SEPARATOR, hidden="suffix"),
    Refinement(separator=SEPARATOR, longest=4, alpha=1.5),
]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_separator_stands_behind_the_cut(objective) -> None:
    batch, cut = drawn(objective)
    index = torch.arange(12)
    assert torch.equal(batch.tokens == SEPARATOR, index >= cut[:, None])
    # One token of the answer stays, or more, or all of them.
    assert set((cut - PROMPTS).tolist()) >= {1, 7, 9} and (cut > PROMPTS).all()
    kept = (batch.tokens != MASK) & (batch.tokens != SEPARATOR)
    assert torch.equal(batch.tokens[kept], TOKENS[kept])
    assert kept[index < PROMPTS[:, None]].all()
    assert torch.equal(batch.targets, TOKENS.flatten()[batch.masked])
    assert (batch.tokens.flatten()[batch.masked] == MASK).all()


def test_distillation_hides_scattered_tokens() -> None:
    batch, cut = drawn(OBJECTIVES[0])
    row, column = batch.masked // 12, batch.masked % 12
    assert ((column >= PROMPTS[row]) & (column < cut[row])).all()
    rows = [column[row == r].tolist() for r in range(len(TOKENS))]
    assert any(at and at != list(range(at[0], at[0] + len(at))) for at in rows)
    # 1 / (t * length): a row of one token has weight 1 / t.
    single = (cut - PROMPTS)[row] == 1
    assert (batch.weights[single] >= 1).all()


def test_distillation_may_hide_a_suffix() -> None:
    """All of a row's hidden tokens weigh one response together, whatever their number."""
    batch, cut = drawn(OBJECTIVES[1])
    row, column = batch.masked // 12, batch.masked % 12
    shares = set()
    for r in range(len(TOKENS)):
        at = column[row == r].tolist()
        assert at and at == list(range(int(cut[r]) - len(at), int(cut[r])))
        assert batch.weights[row == r].sum().item() == pytest.approx(1)
        shares.add(len(at) / int(cut[r] - PROMPTS[r]))
    assert min(shares) < 0.25 and max(shares) == 1


def test_refinement_hides_the_last_tokens() -> None:
    """The nearer to the prefix, the heavier: alpha to the number of tokens behind."""
    batch, cut = drawn(OBJECTIVES[2])
    row, column = batch.masked // 12, batch.masked % 12
    lengths = set()
    for r in range(len(TOKENS)):
        at = column[row == r].tolist()
        assert at == list(range(int(cut[r]) - len(at), int(cut[r])))
        lengths.add(len(at))
        weights = batch.weights[row == r]
        expected = 1.5 ** torch.arange(len(at) - 1, -1, -1)
        torch.testing.assert_close(weights / weights[-1], expected)
    assert lengths == {1, 2, 3, 4}
    assert batch.weights.sum().item() == pytest.approx(len(TOKENS))


def test_worked_example_of_the_weights() -> None:
    """alpha = 1.01, four tokens: 1.030301, 1.0201, 1.01, 1."""
    objective = Refinement(separator=SEPARATOR, longest=96, alpha=1.01)
    batch, _ = drawn(objective)
    row = batch.masked // 12
    (of_four,) = next(
        (batch.weights[row == r],) for r in range(len(TOKENS)) if int((row == r).sum()) == 4
    )
    found = (of_four / of_four[-1]).tolist()
    assert found == pytest.approx([1.030301, 1.0201, 1.01, 1.0], rel=1e-5)

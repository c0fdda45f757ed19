"""WeDLM's training batches: what is masked, in which order, who sees whom."""

import torch

from dllm.training.dual_stream import DualStream


TOKENS = torch.arange(10, 34).view(2, 12)


def batch(objective: DualStream):
    generator = torch.Generator().manual_seed(1)
    return objective(TOKENS, torch.tensor([3, 5]), 0, generator)


def test_visibility() -> None:
    """Length 4, blocks of 2."""
    seen = DualStream(block=2).visible(4)
    rows = {row: seen[row].nonzero().flatten().tolist() for row in (2, 4, 6, 7)}
    assert rows == {2: [0, 1, 2], 4: [4], 6: [0, 1, 6], 7: [0, 1, 6, 7]}


def test_both_streams() -> None:
    made = batch(DualStream(block=4))
    assert made.positions is not None
    clean, noisy = made.tokens[:, :12], made.tokens[:, 12:]
    assert torch.equal(clean, TOKENS)
    order = made.positions[:, 12:]
    assert torch.equal(order.sort(dim=1).values, torch.arange(12).expand(2, -1))
    # What is not masked is the row's own token, prompts always; masks are last in their block.
    kept = noisy != 0
    assert torch.equal(noisy[kept], TOKENS.gather(1, order)[kept])
    assert kept[order < torch.tensor([[3], [5]])].all()
    for block in range(3):
        part = noisy[:, 4 * block : 4 * block + 4] == 0
        assert torch.equal(part, part.sort(dim=1).values)
        assert torch.equal(order[:, 4 * block : 4 * block + 4] // 4, torch.full((2, 4), block))


def test_targets_and_weights() -> None:
    made = batch(DualStream(block=4, ar_weight=3.0))
    assert made.positions is not None
    row, column = made.masked // 24, made.masked % 24
    reading = column < 12
    # A clean row predicts the next token of the response, a mask its own.
    own = made.positions[row, column] + reading
    assert torch.equal(made.targets, TOKENS[row, own])
    assert (own >= torch.tensor([3, 5])[row]).all()
    assert made.tokens[row, column][~reading].eq(0).all()
    total = made.weights.sum()
    torch.testing.assert_close(total, torch.tensor(2.0))
    torch.testing.assert_close(made.weights[reading].sum() / total, torch.tensor(0.75))

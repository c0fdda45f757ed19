"""Batches of the autoregressive objective."""

import torch

from dllm.training.next_token import NextToken


def test_the_row_before_predicts() -> None:
    tokens = torch.arange(10, 22).view(2, 6)
    batch = NextToken()(tokens, torch.tensor([2, 4]), 0, torch.Generator())
    assert torch.equal(batch.tokens, tokens)
    assert batch.masked.tolist() == [1, 2, 3, 4, 9, 10]
    assert batch.targets.tolist() == [12, 13, 14, 15, 20, 21]
    torch.testing.assert_close(batch.weights.sum(), torch.tensor(2.0))
    assert batch.visible is not None
    assert torch.equal(batch.visible, torch.ones(6, 6).tril().bool())

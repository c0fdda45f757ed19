"""Block diffusion's training rows: what attends to what, what is hidden, what it weighs."""

import torch

from dllm.models.masks import block_causal
from dllm.training.block_noise import BlockNoise


def test_visibility():  # B6, clean half: block 4, 10 positions
    visible = BlockNoise(block=4).visible(10)
    clean = visible[10:, 10:]
    index = torch.arange(10)
    assert torch.equal(clean, block_causal(index, index, 4))
    for query, last in ((5, 7), (3, 3), (8, 9)):
        assert clean[query].nonzero().flatten().tolist() == list(range(last + 1))
    # A noisy row sees its own noisy block and the clean blocks before it, nothing else.
    assert visible[5].nonzero().flatten().tolist() == [4, 5, 6, 7, 10, 11, 12, 13]
    assert not visible[10:, :10].any()


def test_rows():
    tokens = torch.arange(5, 5 + 48).view(4, 12)
    prompts = torch.tensor([3, 5, 0, 11])
    for noise in ("row", "block"):
        batch = BlockNoise(block=4, noise=noise)(
            tokens, prompts, 0, torch.Generator().manual_seed(1)
        )
        noisy, clean = batch.tokens.split(12, dim=1)
        assert torch.equal(clean, tokens)
        hidden = noisy == 0
        assert hidden.any(dim=1).all()
        assert not (hidden & (torch.arange(12) < prompts[:, None])).any()
        assert torch.equal(batch.tokens.flatten()[batch.masked], torch.zeros_like(batch.masked))
        assert torch.equal(batch.targets, tokens[hidden])
        assert batch.positions is not None
        assert torch.equal(batch.positions[0], torch.arange(12).repeat(2))


def test_weights_have_expectation_one_per_row_but_for_forced_tokens():
    tokens = torch.ones(64, 32, dtype=torch.int64)
    prompts = torch.full((64,), 8)
    generator = torch.Generator().manual_seed(0)
    sums = [
        BlockNoise(block=8)(tokens, prompts, 0, generator).weights.sum() / 64 for _ in range(60)
    ]
    # A row of which chance hid nothing gets one token at its small p, hence a large weight.
    assert 0.95 < torch.stack(sums).median() < 1.25

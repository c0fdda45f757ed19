"""Block diffusion batches: what is seen in training is what is seen in decoding, nothing else."""

from dataclasses import replace

import pytest
import torch

from dllm.models.loading import dummy_model
from dllm.models.masks import attention_mask
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer
from dllm.training.shifted_blocks import BlockBatch, Row, ShiftedBlocks


MASK, PAD = 3, 2
SPEC = ModelSpec(
    family="llama",
    vocab_size=50,
    d_model=24,
    n_layers=2,
    n_heads=6,
    n_kv_heads=2,
    head_dim=4,
    d_ff=32,
    norm_eps=1e-5,
    rope_theta=1e4,
    max_positions=64,
    mask_id=MASK,
    eos_ids=(PAD,),
    pad_id=PAD,
    attention="block_causal",
    block_size=4,
    logit_shift=1,
)


def draw_rows() -> list[Row]:
    """Prompts that end inside a block, on its border, and in the first one."""
    generator = torch.Generator().manual_seed(0)
    return [
        Row(torch.randint(4, 50, (size,), generator=generator).tolist(), prompt)
        for size, prompt in ((16, 5), (24, 8), (12, 3))
    ]


def batch(block: int = 4, opening: float = 0.3, rows: list[Row] | None = None) -> BlockBatch:
    generator = torch.Generator().manual_seed(1)
    blocks = ShiftedBlocks(block=block, opening=opening)
    return blocks(rows or draw_rows(), MASK, PAD, generator)


@pytest.fixture(scope="module")
def model() -> Transformer:
    found = dummy_model(SPEC, seed=1)
    for parameter in found.parameters():
        if parameter.dim() > 1:
            parameter.data *= 10
    return found


def hidden(model: Transformer, found: BlockBatch) -> torch.Tensor:
    return model.hidden(found.tokens, found.positions, run=found.attention(torch.float32))


@pytest.mark.parametrize("block", [1, 2, 4])
def test_split_attention_is_that_of_the_whole_mask(model: Transformer, block: int) -> None:
    found = batch(block)
    whole = model.hidden(found.tokens, found.positions, found.visible()[:, None])
    split = hidden(model, found)
    assert split.isfinite().all()
    real = found.copy >= 0
    torch.testing.assert_close(split[real], whole[real], atol=1e-5, rtol=1e-5)


def test_a_masked_block_meets_what_it_meets_in_decoding(model: Transformer) -> None:
    found = batch()
    states = hidden(model, found)
    for r, row in enumerate(draw_rows()):
        for copy in (1, 2):
            own = found.copy[r] == copy
            place = found.positions[r][own] // 4
            for block in range(row.prompt // 4, len(row.ids) // 4):
                shown = found.tokens[r][own][place == block].tolist()
                canvas = torch.tensor([row.ids[: block * 4] + shown])
                slots = torch.arange(canvas.shape[1])
                decoded = model.hidden(canvas, mask=attention_mask(SPEC, slots, slots))[0, -4:]
                torch.testing.assert_close(states[r][own][place == block], decoded)


@pytest.mark.parametrize("opening", [0.0, 1.0])
def test_no_state_sees_what_it_has_to_predict(model: Transformer, opening: float) -> None:
    found = batch(opening=opening)
    before = hidden(model, found).flatten(0, 1)
    length = found.tokens.shape[1]
    for r, row in enumerate(draw_rows()):
        for at in range(row.prompt, len(row.ids)):
            rows = draw_rows()
            rows[r] = replace(row, ids=[*row.ids[:at], 49 - row.ids[at], *row.ids[at + 1 :]])
            after = hidden(model, batch(opening=opening, rows=rows)).flatten(0, 1)
            position = found.positions.flatten()[found.states] + 1
            own = found.states[(found.states // length == r) & (position == at)]
            assert len(own) and torch.equal(before[own], after[own])


def test_complementary_masks_teach_every_answer_token_once() -> None:
    found, rows = batch(opening=0.0), draw_rows()
    answers = sum(len(row.ids) - row.prompt for row in rows)
    assert len(found.states) == len(set(found.states.tolist())) == answers
    at = found.positions.flatten()[found.states] + 1
    length = found.tokens.shape[1]
    for r, row in enumerate(rows):
        own = found.states // length == r
        assert sorted(at[own].tolist()) == list(range(row.prompt, len(row.ids)))
        assert [row.ids[i] for i in at[own]] == found.targets[own].tolist()
    # A block's first token is read off the clean copy.
    first = found.copy.flatten()[found.states] == 0
    assert torch.equal(first, found.places == 0)


def test_an_opening_block_is_all_masks_in_one_copy_and_a_beginning_in_the_other() -> None:
    found = batch(opening=1.0)
    for r, row in enumerate(draw_rows()):
        for copy in (1, 2):
            own = found.copy[r] == copy
            answer = found.positions[r][own] >= row.prompt
            hidden_here = found.tokens[r][own] == MASK
            assert not hidden_here[~answer].any()
            if copy == 1:
                assert hidden_here[answer].all()
            else:
                blocks = hidden_here.view(-1, 4)[row.prompt % 4 > 0 :]
                assert all(block[-1] and not block[0] for block in blocks)
                assert (blocks.int().diff(dim=1) >= 0).all()

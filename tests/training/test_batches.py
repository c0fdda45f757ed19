"""Training batches: LLaDA's masking, and nothing from the held-out half."""

import dataclasses
import re

import pytest
import torch

from dllm.errors import ConfigError
from dllm.tasks.base import content_id, split_of
from dllm.tasks.suite import EmbeddedSuite
from dllm.training.batches import MIN_NOISE, Batch, BatchSource, Stage, mask_responses


STAGES = {
    "short": Stage(until=0.5, lengths={32: 1.0}, max_items=4, weights={"sort": 0.0}),
    "long": Stage(until=1.0, lengths={48: 0.5, 64: 0.5}, min_fill=0.5),
}


def source(tokenizer, seed: int = 0) -> BatchSource:
    return BatchSource(tokenizer, STAGES, total_steps=20, micros=2, tokens_per_micro=640, seed=seed)


def restored(batch) -> torch.Tensor:
    """The tokens before masking."""
    tokens = batch.tokens.flatten().clone()
    tokens[batch.masked] = batch.targets
    return tokens.view_as(batch.tokens)


def test_a_step_is_a_function_of_seed_and_step(tokenizer) -> None:
    for step in (0, 7, 15):
        for ours, again in zip(
            source(tokenizer).step(step), source(tokenizer).step(step), strict=True
        ):
            for field in ("tokens", "masked", "targets", "weights"):
                assert torch.equal(getattr(ours, field), getattr(again, field))
    first, other = source(tokenizer).step(0)[0], source(tokenizer, seed=1).step(0)[0]
    assert not torch.equal(restored(first), restored(other))


def test_rows_are_prompt_response_and_eos_up_to_a_fixed_length(tokenizer) -> None:
    for step in (1, 12):
        for batch in source(tokenizer).step(step):
            rows, length = batch.tokens.shape
            assert rows == 640 // length
            for ids in restored(batch).tolist():
                assert ids[0] == 2 and ids.count(2) == 1 and ids.count(3) == 1
                first_end = ids.index(1)
                assert set(ids[first_end:]) == {1}
                assert ids.index(3) < first_end
                assert first_end >= (length // 2 if step == 12 else 0)


def test_only_training_prompts_are_drawn_and_weights_select_kinds(tokenizer) -> None:
    kinds = set()
    for step in range(6):
        for batch in source(tokenizer).step(step):
            for ids in restored(batch).tolist():
                prompt = tokenizer.decode(ids[1 : ids.index(3)])
                kind = prompt.split(":")[0].split(" ")[0]
                kinds.add(kind)
                if kind == "replace" and " any " in prompt:
                    kind = "replace_random"
                if prompt[0].isdigit():
                    kind = "arithmetic"
                assert split_of(content_id(kind, prompt)) == "train"
    assert "sort" not in kinds and "reverse" in kinds


def test_masking_is_llada_s() -> None:
    tokens = torch.arange(400 * 20).view(400, 20)
    prompts = torch.randint(2, 15, (400,), generator=torch.Generator().manual_seed(0))
    batch = mask_responses(tokens, prompts, -1, torch.Generator().manual_seed(1))
    masked = batch.tokens == -1
    positions = torch.arange(20)
    assert not masked[positions < prompts[:, None]].any()
    assert torch.equal(tokens.flatten()[masked.flatten()], batch.targets)
    assert torch.equal(tokens[~masked], batch.tokens[~masked])
    # row i of n is masked with probability t in [i/n, (i+1)/n)
    share = masked.sum(1) / (20 - prompts)
    for quarter in range(4):
        mean = share[quarter * 100 : quarter * 100 + 100].mean()
        assert abs(mean - (quarter + 0.5) / 4) < 0.05
    # the weight 1 / (t * length) sums to one in expectation
    assert abs(batch.weights.sum() / 400 - 1) < 0.15
    assert batch.weights.max() <= 1 / MIN_NOISE


def test_a_batch_goes_to_a_device_as_a_whole() -> None:
    tensors = [torch.tensor([index]) for index in range(6)]
    for batch in (Batch(*tensors), Batch(*tensors[:4])):
        moved = batch.to(torch.device("meta"))
        for field in dataclasses.fields(Batch):
            ours, theirs = getattr(batch, field.name), getattr(moved, field.name)
            assert (theirs is None) == (ours is None)
            assert theirs is None or theirs.is_meta


def test_a_stage_bounds_lists_and_terms(tokenizer) -> None:
    stage = Stage(
        until=1.0, lengths={64: 1.0}, max_items=4, largest_term=1, weights={"arithmetic": 20.0}
    )
    drawn = BatchSource(tokenizer, {"all": stage}, 1, micros=4, tokens_per_micro=1280, seed=0)
    prompts = [
        tokenizer.decode(ids[1 : ids.index(3)])
        for batch in drawn.step(0)
        for ids in restored(batch).tolist()
    ]
    sums = [prompt for prompt in prompts if prompt[0].isdigit()]
    lists = [prompt for prompt in prompts if prompt.startswith(("copy", "sort", "reverse"))]
    assert sums and lists
    assert all(set(re.findall(r"[+-](\d+)", prompt)) == {"1"} for prompt in sums)
    assert all(len(prompt.split()) <= 5 for prompt in lists)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"min_fill": 0.99}, "lengths.32=0.5: none of 10,000 samples fits .* fills min_fill=0.99"),
        ({"lengths": {32: 0.5, 6: 0.5}}, "lengths.6=0.5: none of 10,000 samples fits"),
    ],
)
def test_a_canvas_that_nothing_fills_is_one_line_before_the_first_step(
    tokenizer, stage, words: str
) -> None:
    late = Stage(**{"until": 1.0, "lengths": {32: 0.5}, **stage})
    stages = {"first": Stage(until=0.5, lengths={32: 1.0}), "late": late}
    with pytest.raises(ConfigError, match=f"^stages.late.{words}"):
        BatchSource(tokenizer, stages, 4, micros=1, tokens_per_micro=64, seed=0)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"min_fill": 1.0}, r"^min_fill=1.0 is outside \[0, 1\)"),
        ({"min_fill": 2}, r"^min_fill=2 is outside"),
        ({"min_fill": -0.1}, r"^min_fill=-0.1 is outside"),
        ({"until": 0}, r"^until=0 is outside \(0, 1\]"),
        ({"until": 1.5}, r"^until=1.5 is outside"),
        ({"until": float("nan")}, r"^until=nan is outside"),
        ({"lengths": {32: 0}}, r"^lengths=\{32: 0\} gives no canvas length a share"),
        ({"weights": {"nosuch": 5}}, r"^weights.nosuch=5 is no kind; there are copy, "),
        ({"weights": {"json": -5}}, r"^weights.json=-5 must be a number >= 0"),
        ({"weights": {"json": "x"}}, r"^weights.json=x must be a number >= 0"),
        ({"weights": dict.fromkeys(EmbeddedSuite().kinds, 0)}, r"leaves no kind to draw"),
        ({"max_items": 99}, r"^max_items=99: items 3 to 99: must lie in 2 to 15"),
        ({"largest_term": 0}, r"^largest_term=0: is outside 1..50"),
    ],
)
def test_a_stage_that_cannot_be_is_one_line(stage, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Stage(**{"until": 1.0, "lengths": {32: 1.0}, **stage})

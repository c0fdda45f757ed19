"""AdaBlock: worked examples, the end-to-end table, and the limit of fixed blocks."""

from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from scripted import built
from tiny_decoding import MASK, SPEC, canvas_of, decode, decode_written, ragged_prompts

from dllm.errors import ConfigError
from dllm.models.tokenizers import load_tokenizer
from dllm.step.canvas import Prompt
from dllm.step.prediction import View
from samplers.adablock import AdaptiveBlocks


NEWLINE, COMMA, WORD = 22, 11, 5
TOKENIZER = Path(__file__).parents[2] / "dllm" / "models" / "tiny" / "tiny-llada"


def region(
    block: int, threshold: float | None, ids: list[int] | None = None, **further: object
) -> AdaptiveBlocks:
    options = {
        **further,
        "default_block_length": block,
        "delimiter_threshold": "null" if threshold is None else threshold,
        "delimiter_ids": str(ids or [NEWLINE]).replace(" ", ""),
    }
    rule = built("sampler=adablock", *(f"sampler.region.{k}={v}" for k, v in options.items()))
    assert isinstance(rule.region, AdaptiveBlocks)
    return rule.region


def size(
    blocks: AdaptiveBlocks, delimiters: dict[int, tuple[int, float]], generated: int = 0
) -> int:
    """Length of the block that opens after `generated` of 32 positions, 2 of prompt before them."""
    canvas = canvas_of([WORD] * generated + [MASK] * (32 - generated), prompt=(3, 4))
    canvas.block_end[0] = 2 + generated
    start, end = blocks.next_block(canvas, 0) or (0, 0)
    canvas.enter_block(0, start, end)
    logits = torch.zeros(1, end - start, SPEC.vocab_size)
    logits[..., WORD] = 9.0
    for place, (token, q) in delimiters.items():
        if place < end - start:
            rest = (1 - q) / (SPEC.vocab_size - 1)
            logits[0, place] = torch.tensor(rest).log()
            logits[0, place, token] = torch.tensor(q).log()
    positions = torch.arange(start, end)[None]
    ends = blocks.refine(View(canvas, positions, logits, torch.ones_like(positions).bool()))
    assert ends is not None
    return int(ends[0]) - start


@pytest.mark.parametrize(
    ("block", "threshold", "delimiters", "generated", "expected"),
    [
        (4, 0.3, {2: (NEWLINE, 0.41), 5: (NEWLINE, 0.62)}, 0, 6),  # A1: the surest, not the nearest
        (4, 0.7, {2: (NEWLINE, 0.41), 5: (NEWLINE, 0.62)}, 0, 4),  # A2
        (4, 0.3, {9: (NEWLINE, 0.95)}, 0, 4),  # A3: outside the window of 8
        (4, 0.3, {3: (NEWLINE, 0.5), 6: (NEWLINE, 0.5)}, 0, 4),  # A4: tie, leftmost
        (4, 0.3, {}, 29, 3),  # A5: what is left
        (16, 0.3, {0: (NEWLINE, 0.8)}, 0, 1),  # A6
        (16, 0.3, {0: (NEWLINE, 0.8), 4: (COMMA, 0.9)}, 0, 5),  # A7
    ],
)
def test_block_sizes(block, threshold, delimiters, generated, expected):
    assert size(region(block, threshold, [NEWLINE, COMMA]), delimiters, generated) == expected


@pytest.mark.parametrize(("base", "expected"), [("gen_length", 7), ("generated", 4)])
def test_the_window_is_a_share_of_the_whole_or_of_what_is_there(base: str, expected: int) -> None:
    """A quarter of 32 positions, or of the 16 that are generated: a delimiter at 6 is outside."""
    blocks = region(4, 0.3, window_base=base)
    assert size(blocks, {6: (NEWLINE, 0.9)}, generated=16) == expected


@pytest.mark.parametrize(("dtype", "expected"), [("model", 2), ("float64", 6)])
def test_delimiters_tie_in_the_dtype_of_the_logits(dtype: str, expected: int) -> None:
    """0.998 and 0.999 are one bfloat16 number: the leftmost delimiter, or the surest."""
    blocks = region(4, 0.3, delimiter_conf_dtype=dtype)
    canvas = canvas_of([MASK] * 32, prompt=(3, 4))
    canvas.enter_block(0, *(blocks.next_block(canvas, 0) or (0, 0)))
    positions = torch.arange(canvas.block_start[0], canvas.block_end[0])[None]
    logits = torch.full((*positions.shape, SPEC.vocab_size), -20.0)
    logits[..., WORD] = 0.0
    logits[0, [1, 5], NEWLINE] = torch.tensor([6.5, 7.5])
    view = View(canvas, positions, logits.bfloat16(), torch.ones_like(positions).bool())
    ends = blocks.refine(view)
    assert ends is not None and int(ends[0]) - canvas.block_start[0] == expected


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 2), (0.5001, 4)])
def test_a_delimiter_at_the_threshold_ends_the_block(threshold: float, expected: int) -> None:
    blocks = region(4, threshold, [COMMA])
    canvas = canvas_of([MASK] * 32, prompt=(3, 4))
    canvas.enter_block(0, *(blocks.next_block(canvas, 0) or (0, 0)))
    positions = torch.arange(canvas.block_start[0], canvas.block_end[0])[None]
    logits = torch.full((*positions.shape, SPEC.vocab_size), -1e9)
    logits[..., WORD] = 0.0
    logits[0, 1, WORD] = -1e9
    logits[0, 1, [COMMA, NEWLINE]] = 0.0
    ends = blocks.refine(View(canvas, positions, logits, torch.ones_like(positions).bool()))
    assert ends is not None and int(ends[0]) - canvas.block_start[0] == expected


TOKENS = [7, 8, NEWLINE, 9, 10, NEWLINE, 11, 12, 13, 14, 15, NEWLINE, 16, 17, 18, NEWLINE]
SURE = [0.95, 0.5, 0.8, 0.92, 0.7, 0.6, 0.99, 0.99, 0.99, 0.3, 0.99, 0.2, 0.99, 0.4, 0.99, 0.99]


@pytest.mark.parametrize(
    ("threshold", "lengths", "forwards"),
    [
        ("0.3", [3, 3, 4, 4, 2], [3, 3, 2, 3, 1]),
        ("0.65", [3, 4, 4, 4, 1], [3, 3, 2, 3, 1]),
        ("null", [4, 4, 4, 4], [3, 3, 3, 2]),
    ],
)
def test_a_whole_answer(threshold, lengths, forwards):
    rule = built(
        "sampler=adablock",
        "sampler.region.default_block_length=4",
        f"sampler.region.delimiter_ids=[{NEWLINE}]",
        f"sampler.region.delimiter_threshold={threshold}",
    )
    outcome = decode_written(rule, TOKENS, SURE, record=True)
    assert list(outcome.tokens) == TOKENS
    assert outcome.trace is not None
    opened = [step.opened for step in outcome.trace.steps if step.opened is not None]
    assert [end - start for start, end in opened] == lengths
    blocks = [step.block for step in outcome.trace.steps]
    assert [blocks.count(number) for number in range(len(lengths))] == forwards


def test_without_delimiters_it_is_fast_dllm():
    plain = built("sampler=threshold", "sampler.region.block_length=4", "sampler.threshold=0.7")
    adaptive = built(
        "sampler=adablock",
        "sampler.region.default_block_length=4",
        "sampler.region.delimiter_threshold=null",
        "sampler.threshold=0.7",
    )
    prompts = ragged_prompts()
    ours, theirs = decode(adaptive, prompts, batch_size=4), decode(plain, prompts)
    for name, outcome in ours.items():
        assert outcome.tokens == theirs[name].tokens
        assert outcome.cost.nfe == theirs[name].cost.nfe


@pytest.mark.parametrize("rule", ["localleap", "factor", "credit_v1"])
def test_any_rule_takes_adaptive_blocks(rule: str):
    options = ["sampler/region=adaptive", f"sampler.region.delimiter_ids=[{NEWLINE},5,6]"]
    sampler = built(f"sampler={rule}", *options, "sampler.region.default_block_length=3")
    prompts = ragged_prompts()
    single, batched = decode(sampler, prompts), decode(sampler, prompts, batch_size=4)
    for name, outcome in single.items():
        assert MASK not in outcome.tokens
        assert outcome.tokens == batched[name].tokens


@pytest.mark.parametrize(
    ("rule", "option"), [("adablock", "region.delimiter"), ("dystruct", "delimiter")]
)
def test_delimiters_are_looked_up_in_the_tokenizer(rule: str, option: str):
    tokenizer = load_tokenizer(TOKENIZER)

    def ids(*options: str) -> list[int]:
        bound = built(f"sampler={rule}", *options).with_tokenizer(tokenizer)
        return attrgetter(f"{option}_ids")(bound)

    (newline,) = ids()
    assert tokenizer.decode([newline]) == "\n"
    assert newline in ids(f"sampler.{option}s=line_ends")
    # Ids that were given are kept.
    assert ids(f"sampler.{option}_ids=[5]") == [5]


def test_what_can_not_work_is_refused():
    tokenizer = load_tokenizer(TOKENIZER)
    with pytest.raises(ConfigError, match=r"region.delimiters=\['absent'\]: the tokenizer has no"):
        built("sampler=adablock", "sampler.region.delimiters=[absent]").with_tokenizer(tokenizer)
    prompt = Prompt("one", (5, 6), 8)
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        built("sampler=adablock").region.layout(prompt, SPEC)
    with pytest.raises(ConfigError, match="outside the vocabulary"):
        region(4, 0.3, [400]).layout(prompt, SPEC)
    with pytest.raises(ConfigError, match="use sampler/region=aligned"):
        spec = replace(SPEC, attention="block_causal", block_size=4)
        region(4, 0.3).layout(prompt, spec)
    with pytest.raises(ConfigError, match="finds its blocks while decoding"):
        built("sampler=low_confidence", "sampler/region=adaptive", "sampler.steps=4").validate(8)

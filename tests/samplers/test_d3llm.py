"""d3LLM's rule against a plain loop over one sequence, written from its description."""

import numpy as np
import pytest
import torch
from tiny_decoding import MASK, decode, random_model, sampler

from dllm.errors import ConfigError
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt


MODEL = random_model()
BLOCK, BLOCKS = 4, 5


@torch.inference_mode()
def plain(
    model: Transformer, prompt: Prompt, threshold: float, add: float, everywhere: bool
) -> tuple[list[int], list[list[int]]]:
    """The answer, and the positions that each step commits."""
    start = len(prompt.tokens)
    canvas = torch.tensor([*prompt.tokens, *[MASK] * (BLOCK * BLOCKS)])
    in_work, steps = 1, []

    def masks(block: int) -> list[int]:
        first = start + block * BLOCK
        return [p for p in range(first, first + BLOCK) if canvas[p] == MASK]

    while (canvas == MASK).any():
        share = 1 - len(masks(in_work - 1)) / BLOCK
        if share >= add and in_work < BLOCKS:
            in_work += 1
        logits = model.logits(model.hidden(canvas[None]))[0].double()
        # The loop takes the mask token out of the running where it would be the proposal.
        logits[logits.argmax(dim=-1) == MASK, MASK] = -torch.inf
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        open_ = [p for block in range(in_work) for p in masks(block)]
        chosen = {p for p in open_ if entropy[p] < threshold}
        leftmost = next(masks(block) for block in range(BLOCKS) if masks(block))
        if not chosen & set(leftmost):
            chosen.add(min(leftmost, key=lambda p: float(entropy[p])))
        if everywhere:
            chosen.add(min(open_, key=lambda p: float(entropy[p])))
        steps.append(sorted(p - start for p in chosen))
        for position in chosen:
            canvas[position] = logits[position].argmax()
    return canvas[start:].tolist(), steps


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize(
    ("threshold", "add"), [(0.6, 0.1), (1.2, 0.5), (1.2, 0.0), (0.9, 1.0), (0.0, 0.25)]
)
def test_steps_and_answer_of_a_plain_loop(threshold: float, add: float, everywhere: bool) -> None:
    rule = sampler(
        "sampler=d3llm",
        f"sampler.threshold={threshold}",
        f"sampler.add_threshold={add}",
        f"sampler.everywhere={everywhere}",
    )
    generator = torch.Generator().manual_seed(2)
    prompts = [
        Prompt(str(n), tuple(torch.randint(2, 24, (n,), generator=generator).tolist()), 20)
        for n in (3, 6, 9)
    ]
    outcomes = decode(rule, prompts, batch_size=3, record=True)
    for prompt in prompts:
        outcome = outcomes[prompt.sample_id]
        answer, steps = plain(MODEL, prompt, threshold, add, everywhere)
        assert outcome.trace is not None
        assert [sorted(step.positions) for step in outcome.trace.steps] == steps
        assert list(outcome.tokens) == answer


def test_one_block_at_a_time_is_the_degenerate_case() -> None:
    rule = sampler("sampler=d3llm", "sampler.add_threshold=1", "sampler.everywhere=false")
    outcome = decode(rule, [Prompt("one", (5, 6, 7), 12)], record=True)["one"]
    assert outcome.trace is not None
    blocks = [{p // BLOCK for p in step.positions} for step in outcome.trace.steps]
    assert all(len(found) == 1 for found in blocks)
    assert np.all(np.diff([min(found) for found in blocks]) >= 0)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("sampler.threshold=-1", r"sampler\.threshold=-1 must be >= 0"),
        ("sampler.add_threshold=1.5", r"sampler\.add_threshold=1\.5 is outside \[0, 1\]"),
    ],
)
def test_options(option: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sampler("sampler=d3llm", option)

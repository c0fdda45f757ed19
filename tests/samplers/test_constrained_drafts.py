"""What is drafted and verified under a constraint is distributed as the model's own decoding under
it, whatever drafts and how far."""

from collections import Counter
from functools import cache
from typing import Any

import pytest
from scipy.stats import binomtest

import dllm


ANSWERS = 120
TASK: dict[str, Any] = {
    "constraint": "regex",
    "constraint.pattern": "(Leo|Gary|Mary)( Leo| Gary| Mary| Ruby){2}",
    "sampler/proposer": "gumbel",
    "sampler.proposer.temperature": 2.0,
    "sampler.region.block_length": 8,
}


def answers(model: str, **options: Any) -> Counter[tuple[int, ...]]:
    """How often each answer begins with which three tokens: one text has many spellings."""
    found = dllm.generate(
        dllm.load(model),
        ["sort: Mary Gary Leo Ruby"] * ANSWERS,
        gen_length=8,
        eos="cut",
        batch_size=60,
        trace=False,
        **TASK,
        **options,
    )
    decoded = list(found)
    assert not any(answer.failure for answer in decoded)
    return Counter(answer.tokens[:3] for answer in decoded)


@cache
def own() -> Counter[tuple[int, ...]]:
    return answers("tiny-ar", sampler="left_to_right")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("tiny-deer", {"sampler": "deer", "sampler.draft_length": 8}),
        ("tiny-deer", {"sampler": "deer", "sampler.draft_length": 4, "sampler.draft": "argmax"}),
        ("tiny-deer", {"sampler": "deer", "sampler.on_reject": "continue"}),
        ("tiny-ar", {"sampler": "prompt_lookup"}),
    ],
    ids=["deer", "one-hot drafts", "continue", "prompt_lookup"],
)
def test_sampled_answers_are_the_model_s_own(model: str, options: dict[str, Any]) -> None:
    drafted = answers(model, **options)
    # The most usual answer, and all others.
    ((usual, _),) = own().most_common(1)
    share = (own()[usual] + drafted[usual]) / (2 * ANSWERS)
    for count in (own(), drafted):
        assert binomtest(count[usual], ANSWERS, share).pvalue > 1e-3

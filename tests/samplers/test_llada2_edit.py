"""Worked examples of LLaDA2's editing."""

import pytest
from scripted import Script
from tiny_decoding import WrittenPredictor, decode, sampler
from written import DECIDED, PROMPT, Twin, offsets, proposal, step_of

from dllm.step.canvas import Prompt


def test_editing_overwrites_and_goes_on_until_nothing_changes() -> None:
    written = sampler("sampler=llada2_edit", "sampler/region=fixed")
    step = step_of(written, (Twin(0.99), 0.5, 0.4))
    other = step.view.logits.clone()
    other[0, 0] = other[0, 0].roll(1)
    step.view = step.view.with_logits(other)
    decision = step.decide()
    assert offsets(decision.edit, step.view) == [{0}]
    assert offsets(decision.commit, step.view) == [{1}]
    assert int(decision.tokens[0, 0]) == DECIDED + 1
    # Constant predictions: every commit, then one pass that changes nothing.
    answer = [proposal(i) for i in range(4)]
    outcome = decode(
        written,
        [Prompt("s", PROMPT, 4)],
        WrittenPredictor(answer, (0.6, 0.55, 0.5, 0.45), 3),
        record=True,
    )["s"]
    assert [sorted(s.positions) for s in outcome.trace.steps] == [[0], [1], [2], [3], []]
    assert list(outcome.tokens) == answer


@pytest.mark.parametrize("passes", [0, 1, 3])
def test_editing_ends_after_so_many_passes(passes: int) -> None:
    """The predictions never agree: each block is committed at once, then edited as often as is
    allowed."""
    options = ("sampler/region=fixed", "sampler.threshold=0.9", f"sampler.max_passes={passes}")
    rule = sampler("sampler=llada2_edit", *options)
    script = [[(DECIDED + n % 2, 0.95)] * 8 for n in range(10)]
    prompt = Prompt("s", PROMPT, 8)
    outcome = decode(rule, [prompt], Script(script, len(PROMPT)), record=True)["s"]
    assert outcome.trace is not None
    found = [(len(step.positions), len(step.edits)) for step in outcome.trace.steps]
    assert found == [(4, 0), *[(0, 4)] * passes] * 2

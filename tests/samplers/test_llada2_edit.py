"""Worked examples of LLaDA2's editing."""

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

"""Worked examples of WINO."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_decoding import WrittenPredictor, decode
from written import PROMPT, Twin, offsets, proposal, rule, step_of

from dllm.step.canvas import Prompt


def wino(row: tuple, last: int = 30) -> tuple[set[int], set[int]]:
    """(committed, revoked) positions."""
    written = rule("wino", threshold=0.6, threshold_back=0.9)
    step = step_of(written, row)
    step.state["wino_last"][:] = last
    decision = step.decide()
    assert decision.remask is not None
    return offsets(decision.commit, step.view)[0], offsets(decision.remask, step.view)[0]


def test_wino_caps_what_it_accepts() -> None:
    accepted, _ = wino((0.95, 0.7, 0.65, 0.62, 0.61, 0.605, 0.3, 0.2))
    assert accepted == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("shadow", "last", "revoked"),
    [
        ((0.99, 0.4, 0.95, 0.85, 0.97, 0.96), 5, {1, 3}),
        ((0.99, 0.4, 0.3, 0.85, 0.5, 0.2), 3, {2, 5}),
    ],
)
def test_wino_takes_back(shadow: tuple[float, ...], last: int, revoked: set[int]) -> None:
    row = (*map(Twin, shadow), 0.8, 0.7)
    assert wino(row, last) == ({6, 7}, revoked)


def test_wino_takes_nothing_back_after_a_single_commit() -> None:
    assert wino((Twin(0.1), Twin(0.2), 0.8, 0.5), 5) == ({2}, set())


class Shadowed(WrittenPredictor):
    """Twins agree with what was committed, except at one position."""

    def predict(self, plan, store):
        wanted = plan.logits_for
        width = self.prompt_length + len(self.answer)
        twins = wanted >= width
        at = torch.where(twins, wanted - width + self.prompt_length, wanted)
        prediction = super().predict(replace(plan, logits_for=at), store)
        for entry, row in twins.nonzero().tolist():
            index = int(at[entry, row]) - self.prompt_length
            p = 0.5 if index == 2 else 0.99
            rest = torch.tensor((1 - p) / (self.spec.vocab_size - 1)).double().log()
            prediction.logits[entry, row] = rest
            prediction.logits[entry, row, self.answer[index]] = math.log(p)
        return prediction


def test_wino_from_start_to_end() -> None:
    sure = (0.95, 0.94, 0.93, 0.92, 0.91, 0.90, 0.89, 0.88, 0.7, 0.65, 0.4, 0.3)
    answer = [proposal(i) for i in range(12)]
    written = rule("wino", threshold=0.6, threshold_back=0.9, **{"region.block_length": "null"})
    outcome = decode(written, [Prompt("s", PROMPT, 12)], Shadowed(answer, sure, 3), record=True)[
        "s"
    ]
    assert outcome.trace is not None
    seen = [(sorted(step.positions), step.remasked) for step in outcome.trace.steps]
    assert seen == [(list(range(8)), []), ([8, 9], [2]), ([2], []), ([10], []), ([11], [])]
    assert list(outcome.tokens) == answer
    # Every forward is a block longer than the canvas.
    assert [step.fed for step in outcome.trace.steps] == [3 + 12 + 12] * 5

"""Worked examples of hierarchical decoding with remasking."""

from written import DECIDED, Twin, offsets, rule, step_of


def test_remasking_nets_one_position() -> None:
    # Two decided positions are doubted (0.3, 0.2), so three are picked: the best of the pool.
    written = rule("hierarchy_remask", threshold=0.9, low_threshold=0.5, remask_threshold=0.4)
    row = (0.8, Twin(0.3), Twin(0.2), 0.25, Twin(0.95), 0.05)
    step = step_of(written, row)
    decision = step.decide()
    assert decision.remask is not None and decision.edit is not None
    assert offsets(decision.commit, step.view) == [{0, 3}]
    assert offsets(decision.edit, step.view) == [{1}]
    assert offsets(decision.remask, step.view) == [{2}]
    assert step.canvas.tokens[0, 4] == DECIDED

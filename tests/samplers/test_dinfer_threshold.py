"""Worked examples of dInfer's threshold rule, and its forwards on finished blocks."""

from tiny_decoding import decode_written
from written import A, one, picked, proposal, rule

from dllm.step.eos import EosPolicy


def test_threshold_takes_near_ties_of_the_best() -> None:
    assert picked(rule("dinfer_threshold"), 0.5, 0.5000001, 0.3) == {0, 1}
    assert picked(rule("dinfer_threshold"), 0.5, 0.49, 0.3) == {0}
    assert one(rule("dinfer_threshold"), A) == {0, 5}


def test_unrolling_makes_forwards_on_a_finished_block() -> None:
    written = rule("dinfer_threshold", threshold=0.5, maximum_unroll=4, expected_tpf=2)
    answer = [proposal(i) for i in range(8)]
    outcome = decode_written(written, answer, 0.9, record=True)
    # Blocks of 4: min(4 // 2, 4) forwards each, the second one of each idle.
    assert [sorted(step.positions) for step in outcome.trace.steps] == [
        [0, 1, 2, 3],
        [],
        [4, 5, 6, 7],
        [],
    ]
    assert outcome.cost.nfe == 4


def test_stop_leaves_or_fills_the_later_blocks() -> None:
    answer = [proposal(0), 1, proposal(2), proposal(3), *map(proposal, range(4, 8))]
    written = rule("dinfer_threshold", threshold=0.5)
    left = decode_written(written, answer, 0.9, eos=EosPolicy.STOP_AFTER_BLOCK)
    filled = decode_written(written, answer, 0.9, eos=EosPolicy.FILL_AFTER_BLOCK)
    assert list(left.tokens) == [*answer[:4], 0, 0, 0, 0]
    assert list(filled.tokens) == [*answer[:4], 1, 1, 1, 1]

"""Worked examples of dInfer's rules and of schedules."""

import pytest
from test_threshold_family import rule, steps
from tiny_decoding import decode_written, sampler
from written import DECIDED, A, Twin, commits, offsets, one, picked, proposal, step_of

from dllm.errors import ConfigError
from dllm.step.eos import EosPolicy


def test_threshold_takes_near_ties_of_the_best() -> None:
    assert picked(rule("dinfer_threshold"), 0.5, 0.5000001, 0.3) == {0, 1}
    assert picked(rule("dinfer_threshold"), 0.5, 0.49, 0.3) == {0}
    assert one(rule("dinfer_threshold"), A) == {0, 5}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((0.95, 0.50, None, 0.30, 0.20, None, 0.41, 0.85), {0, 7}),
        ((0.35, 0.30, 0.20), {0}),
    ],
)
def test_hierarchy(row: tuple[float | None, ...], expected: set[int]) -> None:
    assert one(rule("dinfer_hierarchy", threshold=0.9, low_threshold=0.4), row) == expected


def test_hierarchy_ties_and_strictness() -> None:
    written = rule("dinfer_hierarchy", threshold=0.9, low_threshold=0.4)
    assert picked(written, 0.6, 0.6, 0.5) == {0, 1}
    assert picked(written, 0.4, 0.3) == {0}
    assert picked(written, 0.95, 0.9, 0.9) == {0}
    free = rule("dinfer_hierarchy", threshold="null", low_threshold="null")
    assert one(free, (0.2, 0.1, None, 0.05, 0.03)) == {0, 3}


def test_hierarchy_row_by_row() -> None:
    written = rule("dinfer_hierarchy", threshold=0.9, low_threshold=0.4)
    rows = ((0.95, 0.5, None, 0.41), (0.3, 0.2), (None, 0.7, 0.6, None, 0.5))
    assert commits(written, *rows) == [one(written, row) for row in rows]


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


def test_iteration_smoothing() -> None:
    smooth = sampler("sampler=dinfer_threshold", "+schedule@sampler.threshold=linear")
    # max(1 - 0.02 n, 0.8): 0.9 at n = 5, 0.88 at n = 6, 0.8 from n = 10 on.
    row = (0.999, 0.89, 0.885, 0.81, 0.79)
    assert [one(smooth, row, step=n) for n in (0, 5, 6, 10, 90)] == [
        {0},
        {0},
        {0, 1, 2},
        {0, 1, 2, 3},
        {0, 1, 2, 3},
    ]
    assert smooth.threshold.extremes() == (0.8, 1.0)


def test_schedule_per_block() -> None:
    committed = steps(
        "threshold",
        (0.95, 0.85, 0.75, 0.65) * 2,
        threshold="{_target_:dllm.step.schedule.PerBlock,values_by_block:[0.9,0.7]}",
    )
    assert committed == [[0], [1], [2], [3], [4, 5, 6], [7]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("start:1.0,slope:0.1,end:0.8,over:sequence", "slope=0.1 does not lead from start=1.0"),
        ("start:1.0,slope:-0.1,end:-0.5,over:block", r"threshold=-0.5..1.0 is outside \[0, 1\]"),
        ("start:1.0,slope:-0.1,end:0.5,over:never", "sampler.threshold.over='never'"),
    ],
)
def test_refused_schedules(options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule("threshold", threshold="{_target_:dllm.step.schedule.Linear," + options + "}")


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

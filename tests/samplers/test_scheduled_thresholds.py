"""Thresholds that follow a schedule."""

import pytest
from tiny_decoding import sampler
from written import one, rule, steps

from dllm.errors import ConfigError


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

"""Thresholds that follow a schedule."""

import pytest
import torch
from tiny_decoding import sampler
from written import Twin, one, rule, step_of, steps

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


SCHEDULED = [
    ("certainty_prior", "threshold"),
    ("dinfer_hierarchy", "threshold"),
    ("dinfer_hierarchy", "low_threshold"),
    ("dinfer_threshold", "threshold"),
    ("eb_sampler", "gamma"),
    ("eb_d2cache", "gamma"),
    ("fastdllm_dream", "threshold"),
    ("hierarchy_remask", "threshold"),
    ("hierarchy_remask", "low_threshold"),
    ("hierarchy_remask", "remask_threshold"),
    ("klass", "threshold"),
    ("llada2_edit", "threshold"),
    ("llada2_edit", "edit_threshold"),
    ("localleap sampler.relaxed_threshold=0.2", "threshold"),
    ("localleap sampler.threshold=1.0", "relaxed_threshold"),
    ("sdar", "threshold"),
    ("sdar sampler.mode=entropy_bounded", "entropy_bound"),
    ("threshold", "threshold"),
    ("wino", "threshold"),
    ("wino", "threshold_back"),
]
"""Every option that takes a schedule."""


@pytest.mark.parametrize(("name", "option"), SCHEDULED)
def test_a_schedule_is_read_at_its_step(name: str, option: str) -> None:
    """A step of its fall decides as the number that it has reached, in a batch of other values."""
    rules = {
        value: sampler(*f"sampler={name} sampler.{option}={value}".split())
        for value in (0.9, 0.8, 0.7, 0.55, 0.3)
    }
    falling = "{_target_:dllm.step.schedule.Linear,start:0.9,slope:-0.05,end:0.3,over:block}"
    scheduled = sampler(*f"sampler={name} sampler.{option}={falling}".split())
    rows = ((0.95, 0.85, 0.75, 0.65, 0.5, 0.31), (Twin(0.8), Twin(0.5), 0.72, 0.6, 0.4))
    for number, value in ((0, 0.9), (2, 0.8), (4, 0.7), (7, 0.55), (30, 0.3)):
        decisions = [
            step_of(rule, *rows, step=number).decide() for rule in (rules[value], scheduled)
        ]
        for part in ("commit", "remask", "edit"):
            plain, moved = (getattr(decision, part) for decision in decisions)
            assert (plain is None and moved is None) or torch.equal(plain, moved)

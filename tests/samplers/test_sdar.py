"""Worked examples of SDAR's modes: static, dynamic, sequential, entropy bounded."""

import numpy as np
import pytest
from scripted import built
from tiny_decoding import decode_written
from written import one, picked, rule, step_of, top_for_entropy

from dllm.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"denoising_steps": 1}, {0, 1, 2, 3}),
        ({"denoising_steps": 2}, {0, 3}),
        ({"denoising_steps": 4, "threshold": 0.6}, {0, 2, 3}),
        ({"denoising_steps": 4, "threshold": 0.9}, {0}),
        ({"mode": "static", "denoising_steps": 4}, {0}),
        ({"mode": "sequential", "denoising_steps": 2}, {0, 1}),
    ],
)
def test_dynamic_or_quota(options: dict, expected: set[int]) -> None:
    assert one(rule("sdar", **options), (0.9, 0.5, 0.7, 0.8)) == expected


def test_a_count_per_step_needs_no_schedule() -> None:
    blocks = ("sampler/region=fixed", "sampler.region.block_length=7")
    count = built("sampler=sdar", *blocks, "sampler.mode=static", "sampler.per_step=3")
    trace = decode_written(count, [9] * 14, [0.9 - 0.05 * i for i in range(14)], record=True).trace
    assert trace is not None
    assert [len(step.positions) for step in trace.steps] == [3, 3, 1, 3, 3, 1]
    with pytest.raises(ConfigError, match="two quotas"):
        rule("sdar", per_step=2, denoising_steps=2)


def test_dynamic_is_strict_and_needs_the_quota() -> None:
    written = rule("sdar", threshold=0.85, denoising_steps=2)
    assert picked(written, 0.85, 0.85, 0.85, 0.9) == {0, 3}
    assert picked(written, 0.86, 0.1, 0.87, 0.9) == {0, 2, 3}


def test_entropy_bounded_blocks() -> None:
    row = [top_for_entropy(h) for h in (0.1, 0.2, 0.04, 1.5)]
    assert one(rule("sdar", mode="entropy_bounded"), row) == {0, 1, 2}
    assert one(rule("sdar", mode="entropy_bounded", entropy_bound=0.0), row) == {2}


def test_quota_of_dynamic_blocks_never_runs_dry() -> None:
    written = rule("sdar", denoising_steps=2, mode="static")
    canvas = step_of(written, [0.5] * 5, step=9).canvas
    assert np.array_equal(canvas.step_in_block, [9])
    assert one(written, [0.5] * 5, step=9) != set()

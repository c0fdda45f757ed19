"""Answers that would outgrow the model's positions: kept as far as they go, and said to be cut."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_decoding import MASK

from dllm.config import compose
from dllm.report.tables import cells
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


@pytest.mark.parametrize(
    "rule",
    [
        ["sampler=daedal", "sampler.region.initial_length=16", "sampler.eos_threshold=1.0"],
        [
            "sampler=rho_eos",
            "sampler.region.initial_length=16",
            "sampler.low_density=1.0",
            "sampler.high_density=1.0",
            "sampler.high_threshold=1.0",
        ],
        [
            "sampler=dystruct",
            "sampler.region.largest_window=16",
            "sampler.stop_at_end=false",
            "sampler.delimiter_ids=[4]",
        ],
    ],
    ids=lambda rule: rule[0],
)
def test_growth_ends_with_the_models_positions(
    rule: list[str], options: Callable[..., list[str]], short_checkpoint: Path
) -> None:
    given = [option for option in options() if "region" not in option and "model" not in option]
    config = compose(
        [
            *given,
            f"model.path={short_checkpoint}",
            "gen_length=128",
            "limit=2",
            "baseline=false",
            *rule,
        ]
    )
    folder, summary = execute(config, rule[0].removeprefix("sampler="))
    for result in RunFolder(folder).samples():
        assert result.truncated and result.failure is None
        assert result.prompt_length + len(result.tokens) == 48
        assert MASK not in result.tokens
    assert summary["metrics"]["truncated"] == 2
    assert cells(summary)[3].endswith("(2 truncated)")


def test_what_fits_is_not_truncated(
    options: Callable[..., list[str]], short_checkpoint: Path
) -> None:
    config = compose(
        [*options("sampler=threshold", "baseline=false"), f"model.path={short_checkpoint}"]
    )
    _, summary = execute(config, "threshold")
    assert summary["metrics"]["truncated"] == 0
    assert "truncated" not in cells(summary)[3]

"""What the README's first command shows: right answers that fill the canvas, in few forwards."""

from pathlib import Path

import pytest

from dllm.config import compose
from dllm.runs.execute import execute


@pytest.mark.parametrize("sampler", ["localleap", "threshold"])
def test_the_default_task_shows_what_parallel_decoding_gains(sampler: str, tmp_path: Path) -> None:
    quiet = ["tracker=none", "progress=false", "baseline=false", f"output={tmp_path}"]
    _, summary = execute(compose([f"sampler={sampler}", "limit=24", *quiet]), sampler)
    metrics = summary["metrics"]
    assert metrics["accuracy"] > 0.8
    assert metrics["padding_share"] < 0.4
    assert metrics["nfe"] < 32 / 3

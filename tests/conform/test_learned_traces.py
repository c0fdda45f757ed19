"""Recorded traces of the learned, redundancy-aware and lossless methods, and of the block
caches."""

import json
from pathlib import Path

import pytest

from dllm.conform.methods import METHODS
from dllm.conform.traces import Verdict, check


GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = (
    "fastdllm_prefix_cache",
    "fastdllm_dual_cache",
    "learn2pd",
    "learn2pd_collect",
    "learn2pd_eot",
    "learn2pd_eot_prefix",
    "learn2pd_eot_dual",
    "eotp",
    "r2dllm_llada",
    "r2dllm_dream",
    "freedave_llada",
    "freedave_dream",
    "freedave_block",
)


@pytest.mark.parametrize("name", NAMES)
def test_recorded(name: str, tmp_path: Path) -> None:
    # Every second case of what is shipped; scripts.conform replays whole files.
    whole = json.loads((GOLDEN / "traces" / f"{name}.json").read_text())
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({**whole, "cases": whole["cases"][::2]}))
    result = check(path, METHODS, [GOLDEN / "models"])
    assert result.differing == ()
    assert result.verdict is Verdict.PASSED

"""Recorded traces of caches, windows and streaming: tokens, rows fed, what is attended to and what
is recomputed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from dllm.conform.methods import METHODS
from dllm.conform.traces import Verdict, check


GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = (
    "dllm_cache",
    "d2cache",
    "window_diffusion_llada",
    "window_diffusion_dream",
    "wedlm_streaming",
    "wedlm_block",
)


def record(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / "traces" / f"{name}.json").read_text())


def replayed(folder: Path, whole: dict[str, Any], cases: list[dict[str, Any]]):
    path = folder / "trace.json"
    path.write_text(json.dumps({**whole, "cases": cases}))
    return check(path, METHODS, [GOLDEN / "models"])


@pytest.mark.parametrize("name", NAMES)
def test_recorded(name: str, tmp_path: Path) -> None:
    # Every second case of what is shipped; scripts.conform replays whole files.
    whole = record(name)
    result = replayed(tmp_path, whole, whole["cases"][::2])
    assert result.differing == ()
    assert result.verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("name", "field"),
    [("window_diffusion_llada", "visible"), ("dllm_cache", "selected"), ("d2cache", "rows")],
)
def test_what_a_forward_computes_and_sees_is_compared(
    name: str, field: str, tmp_path: Path
) -> None:
    whole = record(name)
    case = copy.deepcopy(next(case for case in whole["cases"] if field in case))
    last = next(part for part in reversed(case[field]) if part)
    while isinstance(last[0], list):
        last = last[0]
    last.pop()
    (difference,) = replayed(tmp_path, whole, [case]).differing
    assert f"{field} " in difference

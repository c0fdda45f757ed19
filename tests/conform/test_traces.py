"""Recorded traces of the authors' implementations, and what the replay does with a wrong one."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dllm.conform.methods import METHODS
from dllm.conform.recorded import FileResult, Places, Verdict, read
from dllm.conform.traces import check
from dllm.errors import ConfigError


GOLDEN = Path(__file__).parents[1] / "golden"
PLACES = Places(checkpoints=(GOLDEN / "models",))
EVERY = 6
"""Of the cases of a file; `scripts.conform` replays whole files."""
WHOLE = ("learn2pd_eot_dual",)
"""Files whose first cases do not tell a broken method from a working one."""


def record(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / "traces" / f"{name}.json").read_text())


def written(folder: Path, record: dict[str, Any], **changes: Any) -> Path:
    path = folder / "trace.json"
    path.write_text(json.dumps({**record, **changes}))
    return path


def replayed(folder: Path, whole: dict[str, Any], *cases: dict[str, Any]) -> FileResult:
    return check(read(written(folder, whole, cases=cases)), PLACES)


def test_every_method_has_a_trace() -> None:
    assert {path.stem for path in (GOLDEN / "traces").iterdir()} == METHODS.keys()


# A recorded case whose relaxed threshold is above the other one.
@pytest.mark.filterwarnings("ignore:sampler.relaxed_threshold")
@pytest.mark.parametrize("name", METHODS)
def test_recorded(name: str, tmp_path: Path) -> None:
    whole = record(name)
    result = replayed(tmp_path, whole, *whole["cases"][:: 1 if name in WHOLE else EVERY])
    assert result.differing == ()
    assert result.verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("localleap", "nfe", 1, "14 forwards instead of 1"),
        ("localleap", "output", [0], "output"),
        ("localleap", "steps", [[[0, 5]]], r"step 0 commits \[\(5, 18\)\] instead of \[\(0, 5\)\]"),
        ("localleap", "anchors", [], "anchors"),
        ("fastdllm_factor", "quirk_steps", [0], r"quirk_steps \[12\] instead of \[0\]"),
        ("klass", "ready", [], "ready"),
        ("credit", "flips", [], "flips"),
        ("wino", "accepted", [], "accepted"),
        ("dream_confidence_threshold", "budget", [], "budget"),
    ],
)
def test_a_difference_is_named(
    name: str, field: str, value: Any, message: str, tmp_path: Path
) -> None:
    whole = record(name)
    result = replayed(tmp_path, whole, {**whole["cases"][0], field: value})
    assert result.verdict is Verdict.FAILED
    assert re.search(message, result.differing[0])


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
    (difference,) = replayed(tmp_path, whole, case).differing
    assert f"{field} " in difference


def test_a_wrong_confidence_is_named(tmp_path: Path) -> None:
    whole = record("localleap")
    case = copy.deepcopy(whole["cases"][0])
    case["confidence"][3][0] += 2e-4
    assert "step 3: confidence" in replayed(tmp_path, whole, case).differing[0]


def test_steps_may_not_be_missing(tmp_path: Path) -> None:
    whole = record("localleap")
    case = {**whole["cases"][0], "steps": whole["cases"][0]["steps"][:-1]}
    assert "14 steps instead of 13" in replayed(tmp_path, whole, case).differing[0]


@pytest.mark.parametrize(
    ("config", "line"),
    [('{"architectures": ["StrangeModel"]}', "StrangeModel"), ("{", "is not valid JSON")],
)
def test_a_checkpoint_that_can_not_be_read(tmp_path: Path, config: str, line: str) -> None:
    model = tmp_path / "models" / "strange"
    model.mkdir(parents=True)
    (model / "config.json").write_text(config)
    path = written(tmp_path, record("localleap"), checkpoint="strange")
    with pytest.raises(ConfigError, match=line):
        check(read(path), Places(checkpoints=(tmp_path / "models",)))


@pytest.mark.parametrize("changes", [{}, {"checkpoint": None}, {"checkpoint": 5}])
def test_a_trace_names_its_checkpoint(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = {"method": "localleap", "cases": record("localleap")["cases"][:1]}
    with pytest.raises(ConfigError, match="names no checkpoint"):
        check(read(written(tmp_path, whole, **changes)), PLACES)


@pytest.mark.parametrize(
    ("field", "value"),
    [("params", []), ("prompt", ["3"]), ("output", None), ("nfe", "14"), ("nfe", None)],
)
def test_a_case_that_is_none(tmp_path: Path, field: str, value: Any) -> None:
    whole = record("localleap")
    broken = {**whole["cases"][0], field: value}
    with pytest.raises(ConfigError, match=f"case 1: {field} is missing or of another kind"):
        replayed(tmp_path, whole, whole["cases"][0], broken)


def test_params_that_say_too_little(tmp_path: Path) -> None:
    whole = record("localleap")
    (line,) = replayed(tmp_path, whole, {**whole["cases"][0], "params": {}}).differing
    assert line == "case 0: its params lack 'gen_length'"


def test_a_trace_decodes_on_the_device_that_is_asked_for() -> None:
    path = GOLDEN / "traces" / "localleap.json"
    result = check(read(path), Places(checkpoints=PLACES.checkpoints, device="gpu0"))
    assert "model.device=gpu0 is not available" in result.differing[0]

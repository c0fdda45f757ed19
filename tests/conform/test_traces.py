"""Recorded traces of the authors' implementations, and what the replay does with a wrong one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dllm.conform.methods import METHODS
from dllm.conform.traces import Verdict, check
from dllm.errors import ConfigError
from scripts.conform import main


GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = [GOLDEN / "models"]
FAMILY = (
    "llada_low_confidence",
    "fastdllm_threshold",
    "fastdllm_factor",
    "localleap",
    "dinfer_threshold",
    "dinfer_hierarchy",
    "credit",
    "klass",
    "eb_sampler",
    "pc_sampler",
    "wino",
    "dream_entropy",
    "dream_maskgit_plus",
    "dream_topk_margin",
    "dream_confidence_threshold",
    "sdar_block_diffusion",
    "adablock_llada",
    "adablock_dream",
    "bacd",
    "tccf",
)


def record(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / "traces" / f"{name}.json").read_text())


def written(folder: Path, record: dict[str, Any], **changes: Any) -> Path:
    path = folder / "trace.json"
    path.write_text(json.dumps({**record, **changes}))
    return path


# A recorded case whose relaxed threshold is above the other one.
@pytest.mark.filterwarnings("ignore:sampler.relaxed_threshold")
@pytest.mark.parametrize("name", FAMILY)
def test_recorded(name: str, tmp_path: Path) -> None:
    # Every second case of the shipped third; scripts.conform replays whole files.
    whole = record(name)
    path = written(tmp_path, whole, cases=whole["cases"][::2])
    result = check(path, METHODS, MODELS)
    assert result.differing == ()
    assert result.verdict is Verdict.PASSED


def spoilt(case: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    return {**case, field: value}


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
    path = written(tmp_path, whole, cases=[spoilt(whole["cases"][0], field, value)])
    result = check(path, METHODS, MODELS)
    assert result.verdict is Verdict.FAILED
    assert re.search(message, result.differing[0])


def test_a_wrong_confidence_is_named(tmp_path: Path) -> None:
    whole = record("localleap")
    case = json.loads(json.dumps(whole["cases"][0]))
    case["confidence"][3][0] += 2e-4
    result = check(written(tmp_path, whole, cases=[case]), METHODS, MODELS)
    assert "step 3: confidence" in result.differing[0]


def test_steps_may_not_be_missing(tmp_path: Path) -> None:
    whole = record("localleap")
    case = spoilt(whole["cases"][0], "steps", whole["cases"][0]["steps"][:-1])
    result = check(written(tmp_path, whole, cases=[case]), METHODS, MODELS)
    assert "14 steps instead of 13" in result.differing[0]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = record("localleap")
    good = written(tmp_path, whole, cases=whole["cases"][:2])
    folder = tmp_path / "bad"
    folder.mkdir()
    bad = written(folder, whole, cases=[spoilt(whole["cases"][0], "nfe", 0)])
    folder = tmp_path / "unknown"
    folder.mkdir()
    unknown = written(folder, whole, method="never_heard_of", cases=[])
    models = ["--checkpoints", str(MODELS[0])]
    assert main([str(good), *models]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"
    assert main([str(good), str(bad), str(unknown), *models]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 1 failed, 1 skipped"
    assert "2/2 cases" in lines[0]
    assert "0/1 cases; case 0" in lines[1]
    assert "unknown method never_heard_of" in lines[2]


def test_unknown_family_is_skipped(tmp_path: Path) -> None:
    model = tmp_path / "models" / "strange"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"architectures": ["StrangeModel"]}')
    path = written(tmp_path, record("localleap"), checkpoint="strange")
    result = check(path, METHODS, [tmp_path / "models"])
    assert result.verdict is Verdict.SKIPPED
    assert "StrangeModel" in result.line()


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_no_trace(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} is no recorded trace")
    assert main([str(tmp_path / "absent.json")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_missing_checkpoint(tmp_path: Path) -> None:
    path = written(tmp_path, record("localleap"), checkpoint="nowhere")
    with pytest.raises(ConfigError, match="checkpoint nowhere is in none of"):
        check(path, METHODS, MODELS)

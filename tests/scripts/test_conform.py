"""The command that replays recorded files: its verdicts, its exit codes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.conform import main


GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = ["--checkpoints", str(GOLDEN / "models")]


def trace(folder: Path, name: str, first: int = 1, **changes: Any) -> str:
    """A file of that name with the first cases of a recorded trace."""
    whole = json.loads((GOLDEN / "traces" / "localleap.json").read_text())
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**whole, "cases": whole["cases"][:first], **changes}))
    return str(path)


def test_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = trace(tmp_path, "good", 2)
    case = json.loads(Path(good).read_text())["cases"][0]
    bad = trace(tmp_path, "bad", cases=[{**case, "nfe": 0}])
    unknown = trace(tmp_path, "unknown", method="never_heard_of")
    assert main([good, *MODELS]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"
    assert main([good, bad, unknown, *MODELS]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 1 failed, 1 skipped"
    assert "2/2 cases" in lines[0]
    assert "0/1 cases; case 0" in lines[1]
    assert "unknown method never_heard_of" in lines[2]


def test_a_missing_checkpoint_fails_its_file_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = trace(tmp_path, "absent", checkpoint="nowhere")
    assert main([absent, trace(tmp_path, "good"), *MODELS]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"FAIL {absent}: checkpoint nowhere is in none of")
    assert lines[1].startswith("ok")


def test_checkpoints_that_differ_fail_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(GOLDEN / "models" / "tiny-llada", tmp_path / "other" / "tiny-llada")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert main([trace(tmp_path, "good"), *MODELS, str(other)]) == 1
    assert "checkpoint tiny-llada differs between" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["nothing", "meta", "auto", "cuda:99"])
def test_a_device_that_is_not_there(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([trace(tmp_path, "good"), *MODELS, "--device", device]) == 2
    assert capsys.readouterr().err.startswith(f"error: --device {device} is no device here")


def test_a_folder_of_checkpoints_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was asked for is not replaced by the folder beside the trace."""
    absent = tmp_path / "absent"
    assert main([trace(tmp_path, "good"), *MODELS, str(absent)]) == 2
    assert capsys.readouterr().err == f"error: --checkpoints {absent}: no such folder\n"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"method": "localleap", "cases": []}',
        '{"method": ["localleap"], "cases": [{}]}',
        '{"method": "localleap", "cases": {"0": {}}}',
    ],
)
def test_what_is_no_recorded_file_stops_the_command(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)
    assert main([trace(tmp_path, "good"), str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {path} is no recorded file")
    assert printed.out == ""
    assert main([str(tmp_path / "absent.json")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_numerics(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(GOLDEN / "models" / name) for name in ("sdar", "tiny-llada")]
    assert main(["--numerics", *folders]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"ok   {folders[0]}: ")
    assert lines[-1] == "1 passed, 0 failed, 0 skipped"
    assert main(["--numerics", folders[1]]) == 2

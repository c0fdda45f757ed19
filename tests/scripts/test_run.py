"""`python -m scripts.run` as a command: exit codes, one line on stderr, sweeps, kill and resume."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from random_checkpoint import write_checkpoint
from safetensors.torch import load_file, save_file


Options = Callable[..., list[str]]
ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "scripts.run"]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
QUIET.pop("HYDRA_FULL_ERROR", None)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, env=QUIET
    )


def main_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the entry point inside this process."""
    from hydra.core.global_hydra import GlobalHydra

    from scripts import run
    from scripts.command_line import CommandLine

    GlobalHydra.instance().clear()
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(run, "COMMAND", CommandLine())
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    with pytest.raises(SystemExit) as stop:
        run.main()
    captured = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, captured.out, captured.err


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    """Runs a command that must be refused before any work; gives its one line."""

    def line(arguments: list[str]) -> str:
        code, out, err = main_of(arguments, monkeypatch, capsys)
        assert code == 2, err
        assert out == ""
        assert err.startswith("error: ") and err.count("\n") == 1, err
        assert [p for p in (tmp_path / "runs").rglob("*") if p.is_file()] == []
        return err

    return line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sampler=localleep", ["sampler=localleep is unknown", "mean localleap?", "threshold"]),
        ("model=a/folder", ["model=a/folder is unknown", "model.path=FOLDER"]),
        ("sampler/region=nothing", ["sampler/region=nothing is unknown", "fixed"]),
        ("sampler.radios=3", ["error: sampler.radios is no option"]),
        ("+sampler.radios=3", ["sampler.radios is no option", "radius"]),
        ("sampler.radius=far", ["sampler.radius='far' is not of type int"]),
        ("sampler.region.block_length=3", ["block_length=3 does not divide gen_length=8"]),
        ("sampler.threshold=1.01", ["sampler.threshold=1.01 is outside [0, 1]"]),
        ("model.path=/nowhere", ["model.path=/nowhere is not a folder"]),
        ("published=nothing", ["error: nothing has no file in ", "results/published"]),
        ("published='ete: a, b, c'", ["published=ete: a, b, c: results/published/ete.yaml has no"]),
        ("gen_length=256", ["prompt of", "gen_length=256 exceeds the model's 256 positions"]),
        ("sampler=[", ["no viable alternative"]),
        ("~cache", ["cache=None needs a choice"]),
        ("sampler=null", ["sampler=null needs a choice", "localleap"]),
        ("output='a/${nothing}'", ["output=a/${nothing}: ${...} stands for another option"]),
        ("+nothing=1", ["nothing is no option; there are allow_external, "]),
        ("+hydra.nothing=1", ["hydra.nothing is no option; there are callbacks, "]),
        ("hydra.nothing=1", ["error: hydra.nothing is no option\n"]),
        ("hydra.output_subdir=[1]", ["error: hydra.output_subdir=[1]: Cannot convert 'list'"]),
        ("model.block_size=4", ["model.block_size=4: tiny-llada has full attention, which knows"]),
        ("nothing", ["'nothing'"]),
        ("--nothing", ["unrecognized arguments: --nothing"]),
        ("--hydra-help", ["Could not override", "No match in the defaults list"]),
        ("limit=99999999", ["limit=99999999: a generated task gives up to 1,000,000 samples"]),
        ("output=''", ["output= is empty"]),
        ("--experimental-rerun=/nowhere", ["would execute what a pickle says"]),
        ("+hydra.callbacks.x._target_=os.system", ["Hydra's parts are chosen by name"]),
        ("sampler.region._target_=samplers.threshold.Threshold", ["is not of type Region"]),
        ("sampler._target_=null", ["sampler._target_=None is not the name of a class"]),
    ],
)
def test_a_wrong_command_is_answered_in_one_line(
    options: Options, refused: Callable[[list[str]], str], override: str, words: list[str]
) -> None:
    line = refused(options(override))
    for word in words:
        assert word in line


def broken(folder: Path, how: str) -> str:
    """Breaks a checkpoint; returns what the refusal must say."""
    weights = folder / "model.safetensors"
    if how == "truncated":
        os.truncate(weights, weights.stat().st_size - 64)
        return "is truncated or not safetensors"
    if how == "another family":
        config = json.loads((folder / "config.json").read_text())
        config |= {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
        (folder / "config.json").write_text(json.dumps(config))
        return "gpt2"
    tensors = load_file(weights)
    name = "model.transformer.ln_f.weight"
    if how == "missing tensor":
        del tensors[name]
        message = f"lacks 1 tensors: {name}"
    elif how == "unexpected tensor":
        tensors["extra.weight"] = torch.zeros(2)
        message = "has 1 unexpected tensors: extra.weight"
    else:
        tensors[name] = torch.zeros(3)
        message = f"{name} has shape [3]"
    save_file(tensors, weights)
    return message


@pytest.mark.parametrize(
    "how",
    ["truncated", "another family", "missing tensor", "unexpected tensor", "other shape"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    options: Options, refused: Callable[[list[str]], str], tmp_path: Path, how: str
) -> None:
    folder = write_checkpoint(tmp_path / "model")
    message = broken(folder, how)
    assert message in refused(options(f"model.path={folder}"))


def test_a_folder_that_cannot_be_written_is_refused(
    options: Options, refused: Callable[[list[str]], str], tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("in the way")
    line = refused(options())
    assert f"output={tmp_path / 'runs'}" in line and "is not writable" in line


def test_a_hub_model_without_network_names_the_way_out(options: Options) -> None:
    given = [o for o in options() if not o.startswith("model.path")]
    result = command(*given, "model=checkpoint", "model.hub=some-org/some-model")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    for word in ("model.hub=some-org/some-model", "config.json", "model.path"):
        assert word in result.stderr


def test_a_full_disk_ends_the_run_with_one_line(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    real, count = os.fsync, 0

    def fills_up(file: int) -> None:
        nonlocal count
        count += 1
        if count > 4:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fills_up)
    given = options("sampler=threshold", "baseline=false", "trace=false")
    code, out, err = main_of(given, monkeypatch, capsys)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "samples.jsonl can't be written: No space left on device" in err
    (path,) = (tmp_path / "runs").rglob("samples.jsonl")
    assert path.read_bytes().count(b"\n") == 4 and path.read_bytes().endswith(b"}\n")
    assert not list(path.parent.glob("summary.json")) + list(path.parent.glob("*.tmp"))


def test_a_run_prints_one_table_and_nothing_on_stderr(options: Options) -> None:
    result = command(*options("sampler=threshold"))
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("threshold", "low_confidence", "accuracy [95 %]", "speed-up NFE", "run folder: "):
        assert word in result.stdout
    assert result.stdout.count("┏") == 1
    assert "%" not in result.stdout.split("run folder")[0].replace("[95 %]", "")


def test_the_progress_bar_goes_to_stderr(options: Options) -> None:
    result = command(*options("sampler=threshold", "baseline=false", "progress=true"))
    assert result.returncode == 0
    assert "6/6" in result.stderr and "tokens/s" in result.stderr and "accuracy" in result.stderr
    assert "6/6" not in result.stdout


def test_a_sweep_goes_on_past_a_failing_job(options: Options, tmp_path: Path) -> None:
    swept = ("sampler=threshold,localleap", "sampler.threshold=0.9,1.5")
    result = command("-m", *options(*swept))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == len(set(lines))
    words = "sampler.threshold=1.5 is outside [0, 1]"
    assert lines and [line for line in lines if words not in line] == []
    assert result.stdout.count("┏") == 1
    assert result.stdout.count("low_confidence") == 1
    assert result.stdout.count("run folder: ") == 2
    runs = [path.parent.parent.name for path in (tmp_path / "runs").rglob("summary.json")]
    assert sorted(runs) == ["localleap", "low_confidence", "threshold"]


def test_help_and_configuration_are_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = command("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    for word in ("python -m scripts.run", "sampler: ", "localleap", "gen_length"):
        assert word in shown.stdout
    shown = command("sampler=threshold", "--cfg", "job")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "threshold: 0.9" in shown.stdout and "hydra" not in shown.stdout


def samples_of(root: Path) -> tuple[list[dict], dict]:
    (path,) = root.glob("threshold/*/samples.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    summary = path.parent / "summary.json"
    return lines, json.loads(summary.read_text()) if summary.exists() else {}


def test_a_killed_run_goes_on_and_ends_as_if_undisturbed(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    slow = write_checkpoint(tmp_path / "slow", d_model=128, head_dim=64, d_ff=512, n_layers=4)
    given = options(
        f"model.path={slow}",
        "sampler=threshold",
        "sampler/proposer=gumbel",
        "baseline=false",
        "limit=16",
        "gen_length=16",
    )
    killed = [*given, f"output={tmp_path / 'killed'}"]
    with subprocess.Popen(
        [*COMMAND, *killed], cwd=ROOT, env=QUIET, stdout=subprocess.DEVNULL
    ) as process:
        while not any(tmp_path.glob("killed/threshold/*/samples.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finished, none = samples_of(tmp_path / "killed")
    assert len(finished) < 16 and none == {}

    assert main_of(killed, monkeypatch, capsys)[0] == 0
    undisturbed = [*given, f"output={tmp_path / 'whole'}"]
    assert main_of(undisturbed, monkeypatch, capsys)[0] == 0
    resumed, summary = samples_of(tmp_path / "killed")
    whole, expected = samples_of(tmp_path / "whole")
    assert resumed[: len(finished)] == finished
    assert len({s["id"] for s in resumed}) == len(resumed) == 16
    assert {s["id"]: s["tokens"] for s in resumed} == {s["id"]: s["tokens"] for s in whole}
    timed = ("tokens_per_second", "tokens_per_second_end_to_end", "latency", "latency_p50")
    timed += ("latency_p95", "peak_memory_mb")
    for values in (summary["metrics"], expected["metrics"]):
        for name in timed:
            del values[name]
    assert summary == expected

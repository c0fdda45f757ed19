"""Sweeps, two processes at once, failed samples: what the user of several jobs meets."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from forked import forked
from random_checkpoint import write_checkpoint
from safetensors.torch import load_file, save_file
from whole_runs import main


Options = Callable[..., list[str]]
ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "scripts.run"]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, env={**QUIET, **more}
    )


def test_jobs_side_by_side(options: Options, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    swept = ("sampler=threshold,localleap", "sampler.threshold=0.9,1.5")
    result = command("-m", *options(*swept, "limit=2"), "hydra/launcher=joblib")
    assert result.returncode == 2
    failed = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    words = "sampler.threshold=1.5 is outside [0, 1]"
    assert failed == [f"error: job {number}: {words}" for number in (1, 3)]
    assert result.stdout.count("run folder: ") == 2
    assert len(list((tmp_path / "runs").glob("low_confidence/*/summary.json"))) == 1


def test_a_sweeper_gets_its_number(options: Options) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    given = options("sampler=threshold", "baseline=false", "limit=2", "objective=nfe")
    result = command("-m", *given, *sweeper, "sampler.threshold=interval(0.0,1.0)")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("run folder: ") == 3


def test_an_unknown_objective_is_named(options: Options) -> None:
    result = command(*options("objective=speed"))
    assert result.returncode == 2
    assert "objective=speed is not one of n, " in result.stderr


def test_a_sweep_folder_used_twice(options: Options, tmp_path: Path) -> None:
    folder = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    given = options("sampler=threshold", "baseline=false", "limit=1", folder)
    first = command("-m", *given, "sampler.threshold=0.1,0.2,1.5")
    assert first.returncode == 2 and first.stdout.count("run folder: ") == 2
    second = command("-m", *given, "sampler.threshold=0.3")
    assert second.returncode == 0 and "error" not in second.stderr
    assert second.stdout.count("run folder: ") == 1


def test_a_sweep_that_cannot_begin(options: Options, tmp_path: Path) -> None:
    """Hydra itself would warn and start the jobs."""
    given = ["-m", *options("sampler=threshold", "sampler.threshold=0.1,0.9")]
    taken, lock = tmp_path / "taken", FileLock(tmp_path / "taken" / ".lock")
    taken.mkdir()
    with lock:
        for folder, code, words in (
            ("/proc/nowhere", 2, "hydra.sweep.dir=/proc/nowhere: No such file"),
            (str(taken), 1, f"hydra.sweep.dir={taken} is still being written by another process"),
        ):
            one = forked(lambda f=folder: main([*given, f"hydra.sweep.dir={f}"]), tmp_path / "said")
            ended, said = one.ended()
            assert ended == code and said.count("error: ") == 1, said
            assert words in said and "Traceback" not in said
            (tmp_path / "said").unlink()
    assert not (tmp_path / "runs").exists()


def test_two_runs_share_one_baseline(options: Options, tmp_path: Path) -> None:
    slow = write_checkpoint(tmp_path / "slow", d_model=128, head_dim=64, d_ff=512, n_layers=4)
    both = [
        subprocess.Popen(
            [*COMMAND, *options(f"sampler={name}", f"model.path={slow}", "gen_length=16")],
            cwd=ROOT,
            env=QUIET,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for name in ("threshold", "localleap")
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("of 6 samples reused from" in text for text in said) == 1
    (path,) = (tmp_path / "runs").glob("low_confidence/*/samples.jsonl")
    assert path.read_bytes().count(b"\n") == 6


def test_failed_samples_are_a_failure(options: Options, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    next(t for name, t in tensors.items() if name.endswith("ff_norm.weight"))[1] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    given = options("sampler=threshold", "baseline=false", "limit=2", f"model.path={folder}")
    for arguments in (given, ["-m", *given]):
        result = command(*arguments)
        assert result.returncode == 1, result.stderr
        assert "2 of 2 samples failed: sample " in result.stderr
        assert "logits are not finite" in result.stderr
    (path,) = (tmp_path / "runs").glob("threshold/*/summary.json")

    def refuse(value: str) -> None:
        raise AssertionError(f"{value} is no JSON")

    summary = json.loads(path.read_text(), parse_constant=refuse)
    assert summary["metrics"]["failed"] == 2


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_home_in_the_output(options: Options, tmp_path: Path, sweep: list[str]) -> None:
    given = [o for o in options("sampler=threshold", "baseline=false", "limit=1")]
    result = command(*sweep, *given, 'output="~/own runs"', HOME=str(tmp_path / "me"))
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "me" / "own runs").glob("threshold/*/summary.json"))
    assert not (ROOT / "~").exists()


@pytest.mark.parametrize("option", ["+nothing=1", "+constraint.nothing=1", "+cache.nothing=1"])
def test_an_unknown_key_is_refused_when_forced(options: Options, option: str) -> None:
    result = command(*options(option))
    assert result.returncode == 2
    assert f"{option[1:-2]} is no option" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [("submitit_local", "hydra_submitit_launcher"), ("ray", "hydra_ray_launcher")],
)
def test_one_table_whatever_launched_it(
    options: Options, tmp_path: Path, launcher: str, plugin: str
) -> None:
    pytest.importorskip(f"hydra_plugins.{plugin}", reason="needs the launcher's extra")
    swept = options("sampler=threshold", "baseline=false", "limit=2", "sampler.threshold=0.1,0.9")
    result = command("-m", *swept, f"hydra/launcher={launcher}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("run folder: ") == 2
    assert len(list((tmp_path / "runs").glob("threshold/*/summary.json"))) == 2

"""Samples decoded elsewhere: a worker's rules, and Ray's actors as a user starts them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from forked import forked
from omegaconf import OmegaConf
from whole_runs import contents, main, timeless

from dllm.config import check_complete, compose
from dllm.errors import ConfigError, RunError
from dllm.runs import checkpoint as checkpoint_module
from dllm.runs.actors import RayActors
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.executor import Work
from dllm.runs.parts import build_parts
from dllm.runs.run import Run
from dllm.runs.worker import Worker


Options = Callable[..., list[str]]
ROOT = Path(__file__).parents[2]


def work(options: Sequence[str], name: str) -> tuple[Run, Work]:
    config = compose(options)
    check_complete(config)
    parts = build_parts(config)
    run = Run(config, name, parts, Checkpoint(parts.model), ())
    return run, Work(OmegaConf.to_yaml(config, resolve=True), name, run.identity.mark, {})


def test_a_worker_loads_the_model_once(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    real, loaded = checkpoint_module.open_model, []

    def counted(model: object) -> object:
        loaded.append(model)
        return real(model)

    monkeypatch.setattr(checkpoint_module, "open_model", counted)
    worker = Worker()
    for name in ("threshold", "low_confidence"):
        run, told = work(options(f"sampler={name}"), name)
        ids = [sample.id for sample in run.samples]
        found = [*worker.decode(told, ids[:2]), *worker.decode(told, ids[2:])]
        assert len(loaded) == 1
        assert sorted(result.id for result, _ in found) == sorted(ids)
        monkeypatch.setattr(checkpoint_module, "open_model", real)
        here = {r.id: timeless(r) for r, _ in run.decoding(run.samples, {}).results(ids)}
        monkeypatch.setattr(checkpoint_module, "open_model", counted)
        assert {result.id: timeless(result) for result, _ in found} == here


def test_a_worker_with_other_code_or_data_is_noticed(options: Options) -> None:
    run, told = work(options("sampler=threshold"), "threshold")
    other = Work(told.config, told.name, "0" * 12, {})
    with pytest.raises(RunError, match="other code, another model or other data"):
        Worker().decode(other, [run.samples[0].id])


@pytest.mark.parametrize(
    ("option", "words"),
    [("workers=0", "executor.workers=0 must be >= 1"), ("gpus=-1", "executor.gpus=-1"),
     ("restarts=-1", "executor.restarts=-1"), ("cpus=0", "executor.cpus=0")],
)  # fmt: skip
def test_options_of_actors(options: Options, option: str, words: str) -> None:
    from dllm.config import build

    with pytest.raises(ConfigError, match=words):
        build(compose(["executor=ray", f"executor.{option}"]).executor, "executor")


def test_without_ray_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    actors = RayActors(address=None, workers=2, cpus=1, gpus=0, restarts=3)
    with pytest.raises(ConfigError, match=r"pip install \"dllm-decode\[ray\]\""):
        actors.check()


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.run", *arguments],
        cwd=ROOT,
        # A busy machine takes its time to start a cluster.
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_raylet_start_wait_time_s": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_ray_actors_decode_what_one_process_decodes(tmp_path: Path) -> None:
    """One of two actors is killed on the way: it is started again, and nothing is lost."""
    pytest.importorskip("ray", reason="needs the extra ray")
    one, two = tmp_path / "one", tmp_path / "two"
    given = ["tracker=none", "progress=false", "limit=24", "batch_size=2", "sampler=threshold"]
    assert forked(lambda: main([*given, f"output={one}"]), tmp_path / "said").ended()[0] == 0
    run = command(*given, f"output={two}", "executor=ray")
    while not any(two.glob("low_confidence/*/samples.jsonl")):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.05)
    actors = _actors_of(run.pid)
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    said, _ = run.communicate()
    assert run.returncode == 0, said
    for sampler in ("threshold", "low_confidence"):
        assert contents(one, sampler) == contents(two, sampler)


def _actors_of(driver: int) -> list[int]:
    """Process ids of the actors below a process."""
    above, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            above[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(path.name)] = (path / "cmdline").read_text()
        except OSError:
            continue

    def below(process: int) -> bool:
        return process == driver or (process in above and below(above[process]))

    return sorted(p for p in names if names[p].startswith("ray::Worker") and below(p))

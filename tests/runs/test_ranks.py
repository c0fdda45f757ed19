"""Several processes decode one run: what they write is what one process would have written."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from forked import Forked, forked
from whole_runs import contents, main

from dllm.runs.folder import RunFolder
from scripts import run as script
from scripts.command_line import CommandLine


Options = Callable[..., list[str]]
ROOT = Path(__file__).parents[2]
GIVEN = ("sampler=threshold", "sampler/proposer=gumbel", "limit=9")


def started(
    arguments: Sequence[str], folder: Path, before: Callable[[int], None] = lambda rank: None
) -> list[Forked]:
    """Two ranks of one launch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def rank(number: int) -> Callable[[], None]:
        def run() -> None:
            before(number)
            main(arguments)

        return run

    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        forked(rank(number), folder / f"rank-{number}", {**shared, "RANK": str(number)})
        for number in (0, 1)
    ]


def test_two_processes_write_what_one_writes(options: Options, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert forked(lambda: main(options(*GIVEN, f"output={one}")), tmp_path / "said").ended()[0] == 0
    ranks = started(options(*GIVEN, f"output={two}"), tmp_path)
    (code, said), (other_code, other) = (rank.ended() for rank in ranks)
    assert (code, other_code) == (0, 0), said + other
    assert other == ""
    assert said.count("┏") == 1 and said.count("tokens/s by 2 processes") == 2
    for sampler in ("threshold", "low_confidence"):
        assert contents(one, sampler) == contents(two, sampler)


def test_a_process_that_ends_ends_the_run_which_goes_on(options: Options, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    given = options(*GIVEN, "baseline=false", f"output={two}")
    append = RunFolder.append

    def dies(rank: int) -> None:
        def once(folder: RunFolder, *sample: object) -> None:
            append(folder, *sample)
            os.kill(os.getpid(), signal.SIGKILL)

        if rank == 1:
            RunFolder.append = once

    first, second = started(given, tmp_path, dies)
    assert second.ended()[0] == -signal.SIGKILL
    code, said = first.ended()
    assert code == 1
    assert "error: one of the 2 processes has ended before its samples were done" in said
    (path,) = two.glob("threshold/*/ranks/1/samples.jsonl")
    assert path.read_bytes().count(b"\n") == 1
    # Alone or with another number of processes, the same command takes it up.
    assert forked(lambda: main(given), tmp_path / "again").ended()[0] == 0
    whole = options(*GIVEN, "baseline=false", f"output={one}")
    assert forked(lambda: main(whole), tmp_path / "whole").ended()[0] == 0
    assert contents(one) == contents(two)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("argument", ["-m", "executor=ray", "sampler.threshold=1.5"])
def test_what_is_wrong_with_the_command_is_said_by_the_first(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys, rank: int, argument: str
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(script, "COMMAND", CommandLine())
    with pytest.raises(SystemExit) as stop:
        main(options("sampler=threshold", argument))
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    assert said.err.count("error: ") == said.err.count("\n") == 1 - rank, said.err


def launch(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    return subprocess.Popen(
        [*command, "--num_processes", "2", "-m", "scripts.run", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_accelerate_launch(options: Options, tmp_path: Path) -> None:
    """The embedded model and task, as the command's user starts it; then a process is killed."""
    one, two = tmp_path / "one", tmp_path / "two"
    given = ["tracker=none", "progress=false", "limit=12", "batch_size=2", "sampler=threshold"]
    assert forked(lambda: main([*given, f"output={one}"]), tmp_path / "said").ended()[0] == 0
    launched = launch(*given, f"output={two}")
    said, _ = launched.communicate()
    assert launched.returncode == 0, said
    assert contents(one) == contents(two)

    longer = [*given, "limit=400", "sampler=low_confidence", "baseline=false", f"output={two}"]
    launched = launch(*longer)
    assert launched.stdout is not None
    while not (found := list(two.glob("low_confidence/*/ranks/1/samples.jsonl"))):
        assert launched.poll() is None
    os.kill(_rank_of(launched.pid), signal.SIGKILL)
    said, _ = launched.communicate()
    assert launched.returncode not in (0, None)
    assert [line for line in said.splitlines() if line.startswith("error: ")] != []
    kept = found[0].read_bytes().count(b"\n")
    assert kept >= 1
    assert forked(lambda: main(longer), tmp_path / "again").ended()[0] == 0
    ids = [result.id for result in RunFolder(found[0].parents[2]).samples()]
    assert len(ids) == len(set(ids)) == 400


def _rank_of(launcher: int) -> int:
    """Process id of the second rank."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            parent = (path / "stat").read_text().rsplit(")", 1)[1].split()[1]
        except OSError:
            continue
        if parent == str(launcher) and b"RANK=1" in environment:
            return int(path.name)
    raise AssertionError("no second rank")


@pytest.mark.parametrize(("rank", "size"), [("3", "1"), ("1", "0"), ("0", "0"), ("2", "2")])
@pytest.mark.parametrize("mode", [[], ["-m", "seed=0"]])
def test_variables_that_a_launcher_has_left(
    rank: str,
    size: str,
    mode: list[str],
    options: Options,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(SystemExit) as stop:
        main([*mode, *options(*GIVEN)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"RANK={rank} and WORLD_SIZE={size} of the environment" in said
    assert said.count("\n") == 1

"""What may happen to a command on its way: nothing finished is lost or doubled, and in the end the
run is what an undisturbed one is."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from forked import forked
from random_checkpoint import small_run
from whole_runs import contents, main

from dllm.models.tensor_file import write_tensors
from dllm.runs.folder import RunFolder
from dllm.runs.lock import locked_output
from dllm.tasks.listops import ListOperations
from dllm.training.checkpoints import save_state
from samplers.threshold import Threshold
from scripts.command_line import CommandLine


Options = Callable[..., list[str]]
GIVEN = ("sampler=threshold", "sampler/proposer=gumbel", "baseline=false")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path):
    """Samples and summary of the run that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    given = small(checkpoint, folder)
    assert forked(lambda: main(given), folder / "said").ended()[0] == 0
    return contents(folder)


def small(checkpoint: Path, output: Path, *more: str) -> list[str]:
    return small_run(checkpoint, output, *GIVEN, *more)


def after_each_sample(happens: Callable[[int], None]) -> None:
    """Of this process: once a sample is kept, `happens` is told how many it has kept."""
    append, count = RunFolder.append, 0

    def kept(folder: RunFolder, *sample: object) -> None:
        nonlocal count
        append(folder, *sample)  # type: ignore[arg-type]
        count += 1
        happens(count)

    RunFolder.append = kept  # type: ignore[method-assign]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_what_is_begun(
    number: signal.Signals, checkpoint: Path, tmp_path: Path, undisturbed
) -> None:
    given = small(checkpoint, tmp_path)

    def stopped() -> None:
        signal.signal(number, signal.SIG_DFL)  # nobody's nohup
        after_each_sample(lambda count: os.kill(os.getpid(), number) if count == 1 else None)
        main(given)

    code, said = forked(stopped, tmp_path / "said").ended()
    assert code == 128 + number, said
    assert f"error: stopped by {number.name}: 2 of 6 samples are kept in " in said
    assert "Traceback" not in said
    results, summary = contents(tmp_path)
    assert (len(results), summary["metrics"]["n"], summary["missing"]) == (2, 2, 4)
    assert forked(lambda: main(given), tmp_path / "again").ended()[0] == 0
    assert contents(tmp_path) == undisturbed


def test_a_second_signal_stops_at_once(checkpoint: Path, tmp_path: Path) -> None:
    def stopped() -> None:
        after_each_sample(lambda count: [os.kill(os.getpid(), signal.SIGINT) for _ in "twice"])
        main(small(checkpoint, tmp_path))

    code, said = forked(stopped, tmp_path / "said").ended()
    assert code == 130 and "Traceback" not in said, said
    assert said.count("\n") == 2 and said.endswith("error: stopped by SIGINT\n")
    assert not list(tmp_path.glob("threshold/*/summary.json"))


def test_nobody_reads_on(checkpoint: Path, tmp_path: Path, undisturbed) -> None:
    """A closed pipe, a full device, no stderr and a full one: the run is kept, the code says that
    the table was not read."""

    def closed() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        main(small(checkpoint, tmp_path / "pipe"))

    def full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        main(small(checkpoint, tmp_path / "full"))

    def silent() -> None:
        sys.stderr = None  # type: ignore[assignment]
        main(small(checkpoint, tmp_path / "silent"))

    def unheard() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        main(small(checkpoint, tmp_path / "unheard", "progress=true"))

    for function, name, expected in (
        (closed, "pipe", 1),
        (full, "full", 1),
        (silent, "silent", 0),
        (unheard, "unheard", 0),
    ):
        code, said = forked(function, tmp_path / "said").ended()
        assert code == expected, said
        assert said.count("error: ") <= 1 and "Traceback" not in said, said
        assert contents(tmp_path / name) == undisturbed


def test_a_clock_that_goes_backwards(checkpoint: Path, tmp_path: Path, undisturbed) -> None:
    def backwards() -> None:
        now = iter(range(2_000_000_000, 0, -3600))
        time.time = lambda: float(next(now))
        main(small(checkpoint, tmp_path))

    assert forked(backwards, tmp_path / "said").ended()[0] == 0
    assert contents(tmp_path) == undisturbed


def test_a_grader_that_raises(checkpoint: Path, tmp_path: Path, undisturbed) -> None:
    """A fault of the code keeps its traceback; what was finished before it is kept, too."""
    given = small(checkpoint, tmp_path)

    def faulty() -> None:
        real, count = ListOperations.assess, 0

        def assess(*arguments: object) -> object:
            nonlocal count
            count += 1
            if count == 4:
                raise ZeroDivisionError("a fault of the grader")
            return real(*arguments)  # type: ignore[arg-type]

        ListOperations.assess = assess  # type: ignore[method-assign]
        main(given)

    code, said = forked(faulty, tmp_path / "said").ended()
    assert code == 1 and "a fault of the grader" in said
    (folder,) = tmp_path.glob("threshold/*")
    assert len(RunFolder(folder).samples()) == 3
    assert forked(lambda: main(given), tmp_path / "again").ended()[0] == 0
    assert contents(tmp_path) == undisturbed


def test_a_sampler_that_raises(checkpoint: Path, tmp_path: Path, undisturbed) -> None:
    given = small(checkpoint, tmp_path)

    def faulty() -> None:
        real, count = Threshold.choose, 0

        def choose(*arguments: object) -> object:
            nonlocal count
            count += 1
            if count == 20:
                raise ZeroDivisionError("a fault of the sampler")
            return real(*arguments)  # type: ignore[arg-type]

        Threshold.choose = choose  # type: ignore[method-assign]
        main(given)

    code, said = forked(faulty, tmp_path / "said").ended()
    assert code == 1 and "a fault of the sampler" in said
    (folder,) = tmp_path.glob("threshold/*")
    assert 0 < len(RunFolder(folder).samples()) < 6
    assert forked(lambda: main(given), tmp_path / "again").ended()[0] == 0
    assert contents(tmp_path) == undisturbed


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """One of 24 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can't be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(checkpoint: Path, tmp_path: Path, disk: Path, undisturbed) -> None:
    given = small(checkpoint, disk / "runs")
    code, said = forked(lambda: main(given), tmp_path / "said").ended()
    assert code == 1 and said.count("\n") == 1, said
    assert "can't be written: No space left on device" in said
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert forked(lambda: main(given), tmp_path / "again").ended()[0] == 0
    assert contents(disk / "runs") == undisturbed


@pytest.mark.parametrize("what", ["tensors", "state", "log"])
def test_a_full_disk_of_a_training(what: str, tmp_path: Path, disk: Path) -> None:
    full = torch.zeros(10_000)

    def writes() -> int:
        if what == "tensors":
            write_tensors(disk / "x.safetensors", {"x": full}, {})
        if what == "state":
            save_state(disk, {"x": full})
        with locked_output(disk, 0), (disk / "metrics.jsonl").open("w") as file:
            file.write("x" * 40_000)
            file.flush()
        return 0

    code, said = forked(lambda: CommandLine().plain(writes), tmp_path / "said").ended()
    assert code == 1 and said.count("\n") == 1, said
    assert said.startswith(f"error: {disk}") and "No space left on device" in said
    assert not list(disk.glob("*.partial"))


def test_without_a_home_in_the_plainest_locale(
    checkpoint: Path, tmp_path: Path, undisturbed
) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS")}
    run = subprocess.run(
        [sys.executable, "-m", "scripts.run", *small(checkpoint, tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**kept, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert contents(tmp_path) == undisturbed


def test_a_folder_that_may_be_read_only(checkpoint: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)

        def without_privileges() -> None:
            # Root may write everywhere: give the capabilities up, of this process alone.
            header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
            assert ctypes.CDLL(None).capset(header, none) == 0
            main(small(checkpoint, Path(folder) / "runs"))

        with tempfile.NamedTemporaryFile() as said:
            code, text = forked(without_privileges, Path(said.name)).ended()
    assert code == 2, text
    assert text.count("\n") == 1 and "is not writable: Permission denied" in text


def test_a_folder_that_is_removed_meanwhile(checkpoint: Path, tmp_path: Path) -> None:
    def removed() -> None:
        import shutil

        after_each_sample(lambda count: shutil.rmtree(tmp_path / "runs"))
        main(small(checkpoint, tmp_path / "runs"))

    code, said = forked(removed, tmp_path / "said").ended()
    assert code == 1, said
    assert said.count("\n") == 1 and "can't be written: No such file" in said, said


@pytest.mark.slow
def test_fifty_kills(checkpoint: Path, tmp_path: Path) -> None:
    """At random moments of a run and its baseline, from the first line on."""
    draw, kills, series = random.Random(1), 0, 0
    more = ("baseline=true", "limit=40")
    whole = tmp_path / "whole"
    began = time.monotonic()
    assert forked(lambda: main(small(checkpoint, whole, *more)), tmp_path / "said").ended()[0] == 0
    long = time.monotonic() - began
    while kills < 50:
        series += 1
        given = small(checkpoint, tmp_path / str(series), *more)
        while True:
            run = forked(lambda given=given: main(given), tmp_path / f"said-{series}")
            time.sleep(draw.uniform(0, long))
            run.kill()
            code, said = run.ended()
            assert code in (0, -signal.SIGKILL), said
            if code == 0:
                break
            kills += 1
        for sampler in ("threshold", "low_confidence"):
            assert contents(tmp_path / str(series), sampler) == contents(whole, sampler)
    print(f"{kills} kills in {series} series")


@pytest.mark.slow
def test_a_tracker_s_service_that_dies(checkpoint: Path, tmp_path: Path, undisturbed) -> None:
    """Tracking is given up with a line; the run goes on, and is sent when asked for again."""
    given = [o for o in small(checkpoint, tmp_path, "tracker=wandb") if o != "tracker=none"]

    def dies(count: int) -> None:
        if count == 2:
            for child in _below(os.getpid()):
                os.kill(child, signal.SIGKILL)

    def tracked() -> None:
        after_each_sample(dies)
        main(given)

    code, said = forked(tracked, tmp_path / "said").ended()
    assert code == 0, said
    assert said.count("note: tracking is given up: ") == 1 and "Traceback" not in said
    assert contents(tmp_path) == undisturbed
    assert not list(tmp_path.glob("threshold/*/tracked.json"))


def _below(process: int) -> list[int]:
    """Ids of the processes that a process has started, and theirs."""
    above = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            above[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue

    def inside(one: int) -> bool:
        return above.get(one) == process or (one in above and inside(above[one]))

    return [one for one in above if inside(one)]

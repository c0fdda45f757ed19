"""Run folders: what survives a kill, a full disk, a second process."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from omegaconf import DictConfig
from sample_results import sample

from dllm.config import fingerprint
from dllm.errors import ConfigError, RunError
from dllm.metrics.definitions import SampleResult
from dllm.runs.folder import RunFolder
from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace


def trace(name: str) -> Trace:
    step = Step(ForwardKind.STEP, fed=9, block=0, positions=[1], tokens=[5], scores=[0.5])
    return Trace(name, 4, 0, [step])


def opened(path: Path, *names: str) -> RunFolder:
    """A folder with finished samples of these names."""
    folder = RunFolder(path)
    with folder.locked(0):
        folder.write_config("seed: 0\n")
        for name in names:
            folder.append(sample(name), trace(name))
    return folder


def sound(result: SampleResult) -> str | None:
    """A check that knows of one wrong sample."""
    return "'z' is wrong" if result.id == "z" else None


def test_samples_and_traces_come_back(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run", "a", "b")
    assert folder.samples() == [sample("a"), sample("b")]
    assert folder.traces() == [trace("a"), trace("b")]


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.samples() == folder.traces() == []
    assert folder.repair(sound, traced=True) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [b"{", b'{"id": "c", "task": "co', b'{"id": "c"}'])
def test_a_line_cut_by_a_kill_does_not_count(tmp_path: Path, left: bytes) -> None:
    folder = opened(tmp_path / "run", "a", "b")
    with open(folder.path / "samples.jsonl", "ab") as file:
        file.write(left)
    assert [result.id for result in folder.samples()] == ["a", "b"]
    assert folder.repair(sound, traced=False) == []
    folder.append(sample("c"))
    assert [result.id for result in folder.samples()] == ["a", "b", "c"]


def test_traces_of_unfinished_samples_are_dropped(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run", "a")
    path = folder.path / "traces.jsonl.gz"
    whole = path.read_bytes()
    from dllm.step.trace import pack_traces

    path.write_bytes(whole + pack_traces([trace("b")]) + whole[:11])
    assert folder.repair(sound, traced=True) == []
    folder.append(sample("b"), trace("b"))
    assert folder.traces() == [trace("a"), trace("b")]


def test_traces_with_too_few_alternatives_are_made_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name, count in (("a", 2), ("b", 5)):
        folder.append(sample(name), replace(trace(name), alternatives=count))
    assert folder.repair(sound, traced=True, alternatives=2) == []
    assert folder.repair(sound, traced=True, alternatives=5) == [
        f"1 samples of {tmp_path} have no trace with 5 alternatives: decoded again"
    ]
    assert [result.id for result in folder.samples()] == ["b"]
    assert [kept.sample_id for kept in folder.traces()] == ["b"]


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from dllm.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(0): pass"
    )
    folder = RunFolder(tmp_path / "run")
    with folder.locked(0):
        result = subprocess.run(
            [sys.executable, "-c", program, folder.path], capture_output=True, text=True
        )
    assert "RunError" in result.stderr
    assert "is still being written by another process after wait_minutes=0" in result.stderr
    with folder.locked(0):
        pass


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ConfigError, match=r"output=.*file/run is not writable: File exists"),
        RunFolder(tmp_path / "file" / "run").locked(0),
    ):
        pass


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError), folder.locked(0):
        raise ConfigError("refused")
    assert not folder.path.exists()
    opened(folder.path, "a")
    with pytest.raises(ConfigError), folder.locked(0):
        raise ConfigError("refused")
    assert folder.samples() == [sample("a")]


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from sample_results import sample
from dllm.errors import RunError
from dllm.metrics.definitions import SampleResult
from dllm.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    for count in range(100):
        folder.append(sample(f"sample {count}"))
except RunError as error:
    print(count, error)
"""


def test_a_file_that_may_not_grow_keeps_whole_lines(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    result = subprocess.run(
        [sys.executable, "-c", FULL, folder.path, Path(__file__).parents[1]],
        capture_output=True,
        text=True,
        check=True,
    )
    count = int(result.stdout.split()[0])
    assert "samples.jsonl can't be written: File too large" in result.stdout
    assert 0 < count < 10
    data = (folder.path / "samples.jsonl").read_bytes()
    assert data.endswith(b"}\n")
    assert [result.id for result in folder.samples()] == [f"sample {i}" for i in range(count)]


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened(tmp_path / "run", "a")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}

    def full(_: object, *__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"can't be written: No space left on device"):
            folder.append(sample("b"), trace("b"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(RunError, match=r"summary.json can't be written: No space left"):
            folder.write_summary({"n": 1})
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def test_the_environment_is_kept_and_its_changes_are_told(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run", "a")
    first = {"torch": "2.13", "commit": "abc"}
    assert folder.write_environment(first) == []
    assert folder.write_environment(first) == []
    assert folder.write_environment(first | {"torch": "2.14"}) == ["torch"]
    assert folder.write_environment(first | {"torch": "2.14"}) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": -1}, "steps=-1 is no int that can be"),
        ({"forwards": {"step": -4}}, "forwards={'step': -4} is no "),
        ({"forwards": {"step": "4"}}, "forwards={'step': '4'} is no "),
        ({"forwards": [4]}, "forwards=[4] is no "),
        ({"effective": 5}, "effective=5 exceeds committed=4"),
        ({"tokens": [5, -1]}, "tokens=[5, -1] is no "),
        ({"tokens": "5 6"}, "tokens='5 6' is no "),
        ({"seconds": float("nan")}, "no JSON"),
        ({"seconds": True}, "seconds=True is no float"),
        ({"failure": "gave up"}, "correct, but failed, unparsed or unfit"),
        ({"unfit": True, "correct": None}, "unfit, but of 4 tokens"),
        ({"steps": 0}, "committed=4 in no step"),
        ({"forwards": {}}, "committed=4 after no forward"),
        ({"id": "z"}, "'z' is wrong"),
        ({"id": "a"}, "a second line of 'a'"),
        ({"extra": 1}, "extra is missing or unknown"),
    ],
)
def test_a_line_that_cannot_be_true_is_named_and_goes(
    tmp_path: Path, change: dict, words: str
) -> None:
    folder = opened(tmp_path / "run", "a")
    with open(folder.path / "samples.jsonl", "a") as file:
        file.write(json.dumps(asdict(sample("b")) | change) + "\n")
    (note,) = folder.repair(sound, traced=False)
    assert note.startswith(f"{folder.path / 'samples.jsonl'}, line 2: {words}")
    assert note.endswith(": decoded again") and "\n" not in note
    assert folder.samples() == [sample("a")]
    assert folder.repair(sound, traced=False) == []


@pytest.mark.parametrize("left", ["", "{", "[]", "garbage: [", '{"label": "x"}', "\0\0"])
@pytest.mark.parametrize("name", ["identity.json", "config.yaml", "summary.json"])
def test_damage_beside_the_samples_is_told(tmp_path: Path, name: str, left: str) -> None:
    folder = opened(tmp_path / "run", "a")
    identity = {"configuration": fingerprint(DictConfig({"seed": 0})), "code": {}}
    folder.write_identity(identity)
    folder.write_summary({"label": "x", "metrics": {}})
    assert folder.damaged(identity) == []
    (folder.path / name).write_text(left)
    assert folder.damaged(identity) == [f"{folder.path / name} is damaged: written anew"]
    (folder.path / name).unlink()
    missing = [f"{folder.path / name} is missing: written anew"]
    assert folder.damaged(identity) == ([] if name == "summary.json" else missing)


def test_a_damaged_environment_goes(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run", "a")
    (folder.path / "environment.json").write_text("{")
    note = folder.damaged({"configuration": ""})[-1]
    assert note.endswith("is damaged: where the samples were made is not known")
    assert folder.write_environment({"torch": "2"}) == []


def test_a_damaged_identity_beside_a_run_stays(tmp_path: Path) -> None:
    folder, other = opened(tmp_path / "run"), opened(tmp_path / "other", "a")
    (other.path / "identity.json").write_text("{")
    assert list(folder.supersede({"configuration": "x"})) == [] and other.samples()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"samples.jsonl can't be read: Is a directory"):
        RunFolder(tmp_path).samples()
    (tmp_path / "config.yaml").write_text("sampler: {}\ntask: {}\nmodel: {}\ncache: {}\n")
    with pytest.raises(ConfigError, match="is no run's configuration: it lacks constraint"):
        RunFolder(tmp_path).config()

"""Trackers: an offline Weights & Biases run read back holds the numbers of the local summary."""

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import wandb

from dllm import config as configuration
from dllm.errors import ConfigError, RunError
from dllm.report.exhibits import exhibits
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder
from dllm.tracking.tracker import RunInfo
from dllm.tracking.wandb_tracker import WandbTracker, _check_environment
from dllm.training.execute import execute as train


BLOCK = 1 << 15


def payloads(path: Path) -> Iterator[bytes]:
    """Records of a .wandb file: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    data, at, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def read_back(folder: Path) -> dict[str, Any]:
    """Config, history, summary, artifacts and run facts of the only offline run below `folder`."""
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its own process has written everything when it has ended
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}, "run": None, "files": path}
    found["artifacts"] = {}
    for payload in payloads(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            for item in record.run.config.update:
                found["config"][item.key] = json.loads(item.value_json)
        elif kind == "history":
            row = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            found["history"].append(row)
        elif kind == "artifact":
            kept = [entry.path for entry in record.artifact.manifest.contents]
            found["artifacts"][record.artifact.name] = sorted(kept)
        elif kind == "summary":
            for item in record.summary.update:
                name = item.key or ".".join(item.nested_key)
                found["summary"][name] = json.loads(item.value_json)
    return found


@pytest.fixture
def tracked(
    options: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Folder, summary and what wandb recorded of a small run."""
    for name in ("WANDB_DIR", "WANDB_PROJECT", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    given = [o for o in options("sampler=threshold", "limit=4") if o != "tracker=none"]
    config = configuration.compose([*given, "tracker=wandb", "tracker.tags=[mine]"])
    folder, summary = execute(config, "threshold", "my sweep", exhibits=exhibits)
    return folder, summary, read_back(folder)


def test_the_offline_runs_hold_the_local_numbers(
    tracked: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, summary, seen = tracked
    metrics = summary["metrics"]
    for name, value in metrics.items():
        if not isinstance(value, dict):
            assert seen["summary"][name] == pytest.approx(value), name
    for name, value in summary["versus_baseline"].items():
        assert seen["summary"][name] == pytest.approx(value), name
    samples = [row for row in seen["history"] if "sample" in row]
    assert [row["sample"] for row in samples] == [1, 2, 3, 4]
    assert samples[-1]["sample/accuracy"] == pytest.approx(metrics["accuracy"])
    assert samples[-1]["sample/tpf"] == pytest.approx(metrics["tpf"])
    assert sum(row["sample/nfe"] for row in samples) == pytest.approx(4 * metrics["nfe"])
    steps = [row for row in seen["history"] if "denoising_step" in row]
    assert sum(r["denoising_step/sequences"] for r in steps) == 4 * metrics["steps"]
    (table,) = seen["files"].parent.glob("files/media/table/samples_*.table.json")
    rows = json.loads(table.read_text())
    assert len(rows["data"]) == 4 and "nfe" in rows["columns"]
    nfe = rows["columns"].index("nfe")
    assert sum(row[nfe] for row in rows["data"]) == 4 * metrics["nfe"]
    kept = seen["artifacts"][f"run-{summary['fingerprint']}"]
    assert {"samples.jsonl", "traces.jsonl.gz", "summary.json"} <= set(kept)
    assert {"accuracy.png", "accuracy.svg", "bits.png", "replay.html"} <= set(kept)
    assert list(seen["files"].parent.glob("files/media/html/replay_*.html"))
    assert "tracked.json" not in kept
    assert list(seen["files"].parent.glob("files/media/images/accuracy_*.png"))
    run = seen["run"]
    assert run.run_id == summary["fingerprint"] and run.display_name == summary["label"]
    assert run.job_type == "decode"
    assert run.run_group == "my sweep"
    assert set(run.tags) == {"mine", "threshold", "tiny-llada"}
    assert seen["config"]["sampler"]["threshold"] == 0.9
    assert seen["config"]["gen_length"] == 8

    baseline = summary["baseline"]
    seen = read_back(folder.parents[1] / "low_confidence" / baseline["fingerprint"])
    assert seen["run"].job_type == "baseline" and seen["run"].run_group == "my sweep"
    assert seen["summary"]["nfe"] == baseline["metrics"]["nfe"]
    samples = [row for row in seen["history"] if "sample" in row]
    assert samples[-1]["sample/accuracy"] == pytest.approx(baseline["metrics"]["accuracy"])


Options = Callable[..., list[str]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, bool]]]:
    """Per run: at every sample that was sent, how many lie on disk and whether a summary does."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    found: dict[str, list[tuple[int, bool]]] = {}
    folders: list[Path] = []
    start, log = WandbTracker.start, WandbTracker.log

    def started(self: WandbTracker, run: RunInfo) -> None:
        folders.append(run.folder)
        assert run.label not in found
        found[run.label] = []
        start(self, run)

    def logged(self: WandbTracker, values: Mapping[str, float], axis: str, step: int) -> None:
        if axis == "sample":
            folder = RunFolder(folders[-1])
            finished = (folder.path / "summary.json").exists()
            list(found.values())[-1].append((len(folder.samples()), finished))
        log(self, values, axis, step)

    monkeypatch.setattr(WandbTracker, "start", started)
    monkeypatch.setattr(WandbTracker, "log", logged)
    return found


def test_samples_are_sent_as_they_come_and_once(
    options: Options, sent: dict[str, list[tuple[int, bool]]]
) -> None:
    given = options("sampler=threshold", "limit=4", "tracker=wandb")
    folder, _ = execute(configuration.compose(given), "threshold")
    live = [(n, False) for n in (1, 2, 3, 4)]
    assert list(sent.values()) == [live, live]
    execute(configuration.compose(given), "threshold")
    assert len(sent) == 2  # nothing was to be done: no second run
    sent.clear()
    lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "samples.jsonl").write_bytes(b"".join(lines[:2]))
    execute(configuration.compose(given), "threshold")
    assert [n for n, _ in next(iter(sent.values()))] == [2, 2, 3, 4] and len(sent) == 1


def test_a_run_that_was_not_tracked_is_sent_when_asked_for(
    options: Options, sent: dict[str, list[tuple[int, bool]]]
) -> None:
    given = options("sampler=threshold", "limit=4", "baseline=false")
    execute(configuration.compose(given), "threshold")
    assert sent == {}
    execute(configuration.compose([*given, "tracker=wandb"]), "threshold")
    assert [n for n, _ in next(iter(sent.values()))] == [4, 4, 4, 4]


def test_online_without_a_key_is_one_line_before_any_decoding(
    options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # its settings are read once per process
    given = options("sampler=threshold", "tracker=wandb", "tracker.mode=online")
    with pytest.raises(
        ConfigError, match=r"tracker\.mode=online needs a key: set WANDB_API_KEY or"
    ):
        execute(configuration.compose(given), "threshold")
    assert not (tmp_path / "runs").exists()


def test_what_wandb_refuses_is_one_line(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    given = options("sampler=threshold", "limit=1", "baseline=false", "tracker=wandb")

    def refuse(**_: object) -> None:
        raise wandb.errors.CommError("not today,\nsays the service")

    monkeypatch.setattr(wandb, "init", refuse)
    config = configuration.compose(given)
    with pytest.raises(RunError, match=r"^tracker\.mode=offline: wandb can't start: "):
        execute(config, "threshold")


def info(folder: Path) -> RunInfo:
    return RunInfo(folder, "f" * 12, "a run", {})


def tracker() -> WandbTracker:
    return WandbTracker(project=None, entity=None, mode="disabled", tags=[])


def test_what_is_decoded_does_not_wait_until_wandb_has_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    decoded, init = threading.Event(), wandb.init

    def slow(**options: Any) -> Any:
        assert decoded.wait(timeout=60)
        return init(**options)

    monkeypatch.setattr(wandb, "init", slow)
    ours = tracker()
    ours.start(info(tmp_path))
    decoded.set()
    ours.log({"nfe": 3.0}, "sample", 1)
    assert ours._run.summary["sample/nfe"] == 3.0
    ours.finish()


def test_a_start_that_failed_is_told_once_and_hides_no_other_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(**_: object) -> None:
        raise wandb.errors.CommError("no")

    monkeypatch.setattr(wandb, "init", refuse)
    ours = tracker()
    ours.start(info(tmp_path))
    with pytest.raises(RunError, match="wandb can't start: no"):
        ours.finish()
    ours.finish()
    ours.start(info(tmp_path))
    with pytest.raises(ConfigError, match="the run's own"):
        try:
            raise ConfigError("the run's own")
        finally:
            ours.finish()


def test_a_check_of_a_plain_environment_waits_for_no_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    program = (
        "import sys\n"
        "from dllm.tracking.wandb_tracker import WandbTracker\n"
        "WandbTracker(project=None, entity=None, mode=None, tags=[]).check()\n"
        "sys.exit('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("project='a/b'", "tracker.project=a/b: wandb takes up to 128 characters without"),
        (f"project={'p' * 129}", "wandb takes up to 128 characters"),
        (f"tags=[{'t' * 65}]", "has 65 characters; wandb takes 1 to 64"),
        ("tags=['']", "has 0 characters"),
    ],
)
def test_names_that_wandb_does_not_take_are_refused_at_once(
    options: Options, tmp_path: Path, option: str, words: str
) -> None:
    given = options("sampler=threshold", "tracker=wandb", f"tracker.{option}")
    with pytest.raises(ConfigError, match=words):
        execute(configuration.compose(given), "threshold")
    assert not (tmp_path / "runs").exists()


def test_a_training_run_is_tracked_as_its_own_log_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    size = {"d_model": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "head_dim": 16, "d_ff": 48}
    recipe = {"total_steps": 3, "tokens_per_micro": 384}
    added = {"compile": "false", "log_every": 1, "eval_items": 1}
    config = configuration.compose(
        [
            "tracker=wandb",
            f"output={tmp_path}",
            *(f"training.spec.{name}={value}" for name, value in size.items()),
            *(f"training.recipe.{name}={value}" for name, value in recipe.items()),
            *(f"++training.recipe.{name}={value}" for name, value in added.items()),
        ],
        "train",
    )
    train(config)
    seen = read_back(tmp_path)
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in kept if "loss" in line] == [1, 2, 3]
    tracked = [row for row in seen["history"] if "training_step" in row]
    assert len(tracked) == len(kept)
    for row, line in zip(tracked, kept, strict=True):
        assert row["training_step"] == line.pop("step")
        assert {f"training_step/{name}" for name in line} == row.keys() - {
            "training_step",
            "_step",
            "_runtime",
            "_timestamp",
        }
        for name, value in line.items():
            assert row[f"training_step/{name}"] == pytest.approx(value), name
    assert seen["run"].display_name == "train tiny-llada"
    assert seen["config"]["training"]["recipe"]["total_steps"] == 3


def test_the_users_environment_holds_where_no_option_is_given(
    options: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = {
        "PROJECT": "own",
        "DIR": str(elsewhere),
        "NAME": "my name",
        "RUN_ID": "x",
        "TAGS": "a,b",
    }
    for name, value in said.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_RUN_GROUP", "my group")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    given = [o for o in options("sampler=threshold", "limit=1", "baseline=false")]
    config = configuration.compose([*given, "tracker=wandb"])
    _, summary = execute(config, "threshold", "sweep")
    run = read_back(elsewhere)["run"]
    assert (run.project, run.display_name, run.run_group) == ("own", "my name", "my group")
    assert {"a", "b", "threshold"} <= set(run.tags)
    assert run.run_id == summary["fingerprint"]
    assert "WANDB_RUN_ID is ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MODE", "bogus"), ("MODE", ""), ("SILENT", "maybe"), ("PROJECT", "a/b")],
)
def test_a_wrong_environment_is_one_line_before_any_decoding(
    options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"WANDB_{variable}", value)
    with pytest.raises(ConfigError, match=r"^(WANDB_|a WANDB_\.\.\. )[^\n]*$"):
        execute(configuration.compose(options("sampler=threshold", "tracker=wandb")), "threshold")
    assert not (tmp_path / "runs").exists()


def test_a_run_is_sent_to_another_project_of_the_environment(
    options: Options, monkeypatch: pytest.MonkeyPatch, sent: dict[str, list[tuple[int, bool]]]
) -> None:
    given = configuration.compose(
        options("sampler=threshold", "limit=1", "baseline=false", "tracker=wandb")
    )
    counts = []
    for project in ("one", "one", "two"):
        monkeypatch.setenv("WANDB_PROJECT", project)
        sent.clear()
        folder, _ = execute(given, "threshold")
        counts.append(len(sent))
    assert counts == [1, 0, 1]
    (folder / "tracked.json").write_text('{"mode"')
    sent.clear()
    execute(given, "threshold")
    assert len(sent) == 1


def test_a_home_folder_in_the_environment_is_meant(
    options: Options,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_DIR", "~/elsewhere")
    for name in ("ARTIFACT", "CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", f"~/{name}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    given = options("sampler=threshold", "limit=1", "baseline=false", "tracker=wandb")
    execute(configuration.compose(given), "threshold")
    assert read_back(tmp_path / "elsewhere")["run"].job_type == "decode"
    assert "given up" not in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(("variable", "value"), [("MODE", "disabled"), ("DISABLED", "true")])
def test_a_disabled_tracker_writes_nothing(
    options: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv(f"WANDB_{variable}", value)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    given = options("sampler=threshold", "limit=1", "baseline=false", "tracker=wandb")
    folder, _ = execute(configuration.compose(given), "threshold")
    assert not list(folder.glob("wandb/*run-*"))


def test_tracking_nothing_imports_nothing(options: Callable[..., list[str]]) -> None:
    program = (
        "import sys\n"
        "from dllm import config\n"
        "from dllm.runs.execute import execute\n"
        "execute(config.compose(sys.argv[1:]), 'localleap')\n"
        "assert 'torch' in sys.modules\n"
        "sys.exit('wandb' in sys.modules)"
    )
    given = options("limit=1", "baseline=false")
    result = subprocess.run([sys.executable, "-c", program, *given], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_tags_of_the_environment_are_named_as_they_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_TAGS", " , ,")
    with pytest.raises(ConfigError, match="WANDB_TAGS= , ,"):
        _check_environment()


def test_a_service_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SERVICE", "x")
    with pytest.raises(ConfigError, match="WANDB_SERVICE='x'"):
        _check_environment()

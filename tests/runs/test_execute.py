"""Whole runs in this process: what is kept, what is not repeated, what the numbers are."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from dllm import config as configuration
from dllm.errors import ConfigError
from dllm.metrics.definitions import Comparison, Summary
from dllm.runs import run as run_module
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder
from dllm.runs.parts import build_parts


Options = Callable[..., list[str]]
TIMINGS = (
    "tokens_per_second",
    "tokens_per_second_end_to_end",
    "latency",
    "latency_p50",
    "latency_p95",
    "peak_memory_mb",
)


def run(options: list[str]) -> tuple[RunFolder, dict]:
    config = configuration.compose(options)
    name = next((o.split("=")[1] for o in options if o.startswith("sampler=")), "localleap")
    folder, summary = execute(config, name)
    return RunFolder(folder), summary


def test_a_run_leaves_a_complete_folder(options: Options) -> None:
    folder, summary = run(options("sampler=threshold"))
    names = {path.name for path in folder.path.iterdir()}
    assert names >= {
        "config.yaml",
        "environment.json",
        "samples.jsonl",
        "traces.jsonl.gz",
        "summary.json",
    }
    assert not [name for name in names if name.endswith(".tmp")]
    assert summary == folder.summary()
    results = folder.samples()
    assert len({result.id for result in results}) == 6
    assert summary["metrics"] == asdict(Summary.of(sorted(results, key=_task_order(folder))))
    for result in results:
        assert result.effective <= result.committed <= len(result.tokens) == 8
    replayed = {t.sample_id: list(t.replay())[-1].tolist() for t in folder.traces()}
    assert replayed == {result.id: result.tokens for result in results}


def _task_order(folder: RunFolder) -> Callable:
    """Medians and quantiles do not care, sums of floats do."""
    config = configuration.compose(["task=listops"])
    task = configuration.build(config.task, "task")
    order = {sample.id: i for i, sample in enumerate(task.samples("test", 6, 0))}
    return lambda result: order[result.id]


def test_the_resolved_configuration_runs_again(options: Options) -> None:
    folder, _ = run(options("sampler=threshold", "baseline=false"))
    from omegaconf import OmegaConf

    config = OmegaConf.load(folder.path / "config.yaml")
    assert configuration.fingerprint(config) == folder.identity()["configuration"]
    assert execute(config, "threshold")[0] == folder.path


def test_the_baseline_is_one_token_per_forward_on_the_same_samples(options: Options) -> None:
    folder, summary = run(options("sampler=threshold", "sampler.threshold=0"))
    base = RunFolder(folder.path.parents[1] / "low_confidence" / summary["baseline"]["fingerprint"])
    assert {r.id for r in base.samples()} == {r.id for r in folder.samples()}
    assert summary["baseline"]["metrics"]["nfe"] == 8
    assert summary["baseline"]["metrics"]["tpf_canvas"] == 1
    assert summary["versus_baseline"]["nfe_speedup"] == 8
    assert summary["versus_baseline"] == asdict(Comparison.of(folder.samples(), base.samples()))


def test_a_baseline_is_measured_once(options: Options) -> None:
    first, summary = run(options("sampler=threshold"))
    base = first.path.parents[1] / "low_confidence" / summary["baseline"]["fingerprint"]
    stamp = (base / "samples.jsonl").stat()
    _, other = run(options("sampler=factor"))
    assert other["baseline"]["fingerprint"] == summary["baseline"]["fingerprint"]
    after = (base / "samples.jsonl").stat()
    assert (after.st_mtime_ns, after.st_ino) == (stamp.st_mtime_ns, stamp.st_ino)
    # Asked for by name it is the same run.
    _, itself = run(options("sampler=low_confidence"))
    assert itself["fingerprint"] == summary["baseline"]["fingerprint"]
    assert itself["versus_baseline"]["nfe_speedup"] == 1
    assert (base / "samples.jsonl").stat().st_mtime_ns == stamp.st_mtime_ns


def test_a_finished_run_is_not_decoded_again(options: Options) -> None:
    given = options("sampler=threshold", "baseline=false")
    folder, first = run(given)
    before = (folder.path / "samples.jsonl").read_bytes()
    again, second = run([*given, "progress=true", "trace=false"])
    assert again.path == folder.path and first == second
    assert (folder.path / "samples.jsonl").read_bytes() == before


def test_a_run_goes_on_where_it_was(options: Options) -> None:
    whole, _ = run(options("sampler=threshold", "baseline=false"))
    results, traces = whole.samples(), whole.traces()
    part = RunFolder(whole.path)
    os.truncate(part.path / "samples.jsonl", 0)
    (part.path / "traces.jsonl.gz").unlink()
    (part.path / "summary.json").unlink()
    for result, trace in list(zip(results, traces, strict=True))[:4]:
        part.append(result, trace)
    with open(part.path / "samples.jsonl", "a") as file:
        file.write('{"id": "cut o')
    resumed, _ = run(options("sampler=threshold", "baseline=false"))
    assert resumed.samples()[:4] == results[:4]
    assert {r.id: r.tokens for r in resumed.samples()} == {r.id: r.tokens for r in results}
    assert len(resumed.samples()) == len(resumed.traces()) == 6


@pytest.mark.parametrize(
    "name", ["identity.json", "config.yaml", "summary.json", "environment.json"]
)
def test_damaged_files_of_a_run_are_mended_aloud(options: Options, capsys, name: str) -> None:
    given = options("sampler=threshold", "baseline=false", "limit=2")
    folder, summary = run(given)
    whole = (folder.path / name).read_bytes()
    (folder.path / name).write_bytes(whole[: len(whole) // 2])
    run_module._MADE_HERE.clear()
    capsys.readouterr()
    assert run(given)[1] == summary
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and f"{folder.path / name} is damaged: " in notes[0]
    assert "2 of 2 samples reused" in notes[1]
    if name != "environment.json":
        assert (folder.path / name).read_bytes() == whole


def test_a_sample_that_contradicts_itself_is_decoded_again(options: Options, capsys) -> None:
    given = options("sampler=threshold", "baseline=false", "limit=2")
    folder, _ = run(given)
    path = folder.path / "samples.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    whole = json.loads(lines[0])
    path.write_text(json.dumps(whole | {"committed": 0}) + "\n" + lines[1])
    capsys.readouterr()
    run(given)
    assert f"{path}, line 1: effective=" in capsys.readouterr().err
    again = {result.id: result.tokens for result in folder.samples()}
    assert len(again) == 2 and again[whole["id"]] == whole["tokens"]


def test_a_line_that_can_not_be_this_sample_s_is_decoded_again(options: Options, capsys) -> None:
    given = options("sampler=threshold", "baseline=false", "limit=2", "trace=false")
    folder, _ = run(given)
    path = folder.path / "samples.jsonl"
    spec = Checkpoint(build_parts(configuration.compose(given)).model).spec
    lines = path.read_text().splitlines(keepends=True)
    whole = json.loads(lines[0])
    tokens = whole["tokens"]
    changes = {
        "masks in an answer that did not fail": {"tokens": [spec.mask_id] * len(tokens)},
        "1 masks in an answer": {"tokens": [*tokens[:-1], spec.mask_id]},
        "3 tokens where gen_length=": {"tokens": tokens[:3]},
        "is outside the vocabulary": {"tokens": [*tokens[:-1], spec.vocab_size]},
        "after no forward": {"forwards": {}},
        "task='other' is not the sample's": {"task": "other"},
        "prompt='other' is not the sample's": {"prompt": "other"},
        "output is not the text of its tokens": {"output": "other"},
        "'z' is no sample of this run": {"id": "z"},
    }
    for words, change in changes.items():
        path.write_text(json.dumps(whole | change) + "\n" + lines[1])
        capsys.readouterr()
        run(given)
        (note,) = [x for x in capsys.readouterr().err.splitlines() if "decoded again" in x]
        assert f"{path}, line 1: " in note and words in note
        again = {result.id: result.tokens for result in folder.samples()}
        assert len(again) == 2 and again[whole["id"]] == tokens


@pytest.mark.parametrize(
    "given",
    [
        ["sampler=threshold", "eos=stop_after_block", "sampler.region.block_length=4"],
        ["sampler=threshold", "eos=cut", "sampler.region.block_length=4"],
        ["sampler=low_confidence", "sampler/region=growing", "sampler.region.initial_length=5"],
        ["sampler=daedal", "sampler.region.initial_length=8"],
        ["sampler=tccf", "sampler.final_gen_length=3", "sampler.base.region.block_length=8"],
    ],
)
def test_what_was_decoded_is_kept(options: Options, capsys, given: list[str]) -> None:
    small = [o for o in options() if "block_length" not in o]
    given = [*small, *given, "baseline=false", "limit=2"]
    run(given)
    run_module._MADE_HERE.clear()
    capsys.readouterr()
    run(given)
    assert "2 of 2 samples reused" in capsys.readouterr().err


def test_a_task_that_cannot_give_so_many_samples_is_refused(options: Options) -> None:
    class Small(type(configuration.build(configuration.compose().task, "task"))):
        def samples(self, split, limit=None, seed=0):
            raise ValueError("task copy: the test split has only about 9 samples")

    config = configuration.compose(options())
    with pytest.raises(ConfigError, match=r"limit=6: task copy: the test split has only about 9"):
        run_module._samples(Small(), config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.path=/nowhere", "model.path=/nowhere is not a folder"),
        ("gen_length=256", "exceeds the model's 256 positions"),
        ("sampler.threshold=2", "sampler.threshold=2 is outside"),
    ],
)
def test_a_refused_run_leaves_nothing(
    options: Options, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(options(override))
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []


def test_places_that_no_sample_takes_cost_nothing(options: Options) -> None:
    _, summary = run(options("sampler=threshold", "baseline=false", "batch_size=1000000000"))
    assert summary["metrics"]["n"] == 6


def test_labels_name_what_differs(options: Options) -> None:
    given = ("sampler=threshold", "sampler.threshold=0.5", "cache=dual", "baseline=false")
    _, summary = run(options(*given))
    assert summary["label"].startswith(
        "threshold (region.block_length=8, threshold=0.5, cache=dual, "
    )


def test_summaries_are_plain_json(options: Options) -> None:
    folder, _ = run(options("sampler=threshold", "eos=cut"))

    def refuse(value: str) -> None:
        raise AssertionError(f"{value} is no JSON")

    json.loads((folder.path / "summary.json").read_text(), parse_constant=refuse)

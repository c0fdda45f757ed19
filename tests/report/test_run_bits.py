"""Bits of decoded sequences, from their traces to columns and the command line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_results import sample
from tiny_decoding import sampler
from toy_model import decoded, rounds
from written_runs import write_run

from dllm.errors import ConfigError
from dllm.models.spec import NO_MASK
from dllm.report.bits import RunBits, SequenceBits, told_apart
from dllm.report.cells import Cell, measure
from dllm.report.columns import COLUMNS
from dllm.report.tables import COLUMNS as COLUMNS_OF_RUNS
from dllm.report.tables import cells, print_comparison
from dllm.runs.folder import RunFolder
from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace, pack_traces
from dllm.tasks.toy_oracle import ToyOracle
from scripts.bits import main


XY = {"x": 0.85, "y": 0.15}
TOY_1 = ToyOracle(
    {
        a + b + c + value + "".join(f"{'abc'.index(value) * 4 + i:x}" for i in range(4)): (
            XY[a] * XY[b] * XY[c] * weight
        )
        for a in "xy"
        for b in "xy"
        for c in "xy"
        for value, weight in {"a": 0.4, "b": 0.35, "c": 0.25}.items()
    }
)
"""Three independent positions, one with three values, and four that follow from it."""


@pytest.mark.parametrize(
    ("threshold", "committed", "carried", "forced"),
    [
        (0.9, [[0], [1], [2], [3], [4, 5, 6, 7]], [0.2345, 0.2345, 0.2345, 1.3219, 0.0], 4),
        (0.8, [[0, 1, 2], [3], [4, 5, 6, 7]], [0.7034, 1.3219, 0.0], 1),
    ],
)
def test_bits_of_a_threshold(
    threshold: float, committed: list[list[int]], carried: list[float], forced: int
) -> None:
    rule = sampler("sampler=threshold", f"sampler.threshold={threshold}")
    (outcome,) = decoded(rule, TOY_1)
    assert rounds(outcome) == committed
    assert outcome.trace is not None
    found = SequenceBits.of(outcome.trace, 8, rule.budget())
    assert [one.bits for one in found.rounds] == pytest.approx(carried, abs=1e-4)
    assert found.path_bits == found.effective_bits == pytest.approx(2.0253, abs=1e-4)
    assert found.unknown == 0
    # Everything below the threshold needs a round; certain tokens carry nothing.
    assert found.bound is not None
    assert found.bound.forced == forced
    assert found.bound.rounds <= len(found.rounds)
    assert SequenceBits.of(outcome.trace, 4, None).effective_bits == pytest.approx(2.0253, abs=1e-4)
    assert SequenceBits.of(outcome.trace, 3, None).effective_bits == pytest.approx(0.7034, abs=1e-4)


def step(block: int, *p: float | None, **changes: object) -> Step:
    first = changes.pop("first", 0)
    assert isinstance(first, int)
    positions = list(range(first, first + len(p)))
    given = Step(ForwardKind.STEP, 8, block, positions=positions, tokens=[5] * len(p))
    return replace(given, probabilities=list(p), **changes)


def test_how_much_a_round_could_have_committed() -> None:
    """A block's open positions; all open ones where the rule commits beyond its block."""
    inside = [step(0, 0.5, opened=(0, 4)), step(0, 0.5, 0.5, 0.5, first=1)]
    beyond = [step(1, 0.9, 0.9, first=4, opened=(4, 6)), step(1, 0.9, 0.9, first=6)]
    found = SequenceBits.of(Trace("a", 8, 0, [*inside, *beyond]), 8, None)
    assert [one.most for one in found.rounds] == [4, 4, 4, 4]
    found = SequenceBits.of(Trace("a", 8, 0, inside), 8, None)
    assert [one.most for one in found.rounds] == [4, 4]


def test_forwards_that_decide_nothing_and_tokens_without_a_probability() -> None:
    idle = Step(ForwardKind.PREFILL, 3, 0)
    trace = Trace("a", 4, 0, [idle, step(0, 0.5, None, opened=(0, 4)), step(0, 0.5, first=2)])
    found = SequenceBits.of(trace, 4, None)
    assert len(found.rounds) == 2
    assert (found.path_bits, found.unknown) == (2.0, 1)
    assert found.bound is None


@pytest.fixture
def run(options: Callable[..., list[str]]) -> Callable[..., RunFolder]:
    return lambda *more: measure(options("task=listops", "trace=true", *more)).folder


def test_the_command(
    run: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plain, quota = run("sampler=threshold"), run("sampler=low_confidence")
    picture = tmp_path / "bits.png"
    assert main([str(plain.path), str(quota.path), "--picture", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "bits/round" in shown and "independent uncertain tokens" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    for wrong, why in (
        (tmp_path, "must end with .png"),
        (tmp_path / "x.txt", "must end with .png"),
        (tmp_path / "absent" / "x.png", "can't be written: No such file or directory"),
    ):
        assert main([str(plain.path), "--picture", str(wrong)]) == 2
        assert capsys.readouterr().err == f"error: --picture {wrong} {why}\n"
    assert list(tmp_path.parent.glob("*.png")) == []
    found = RunBits.of(plain)
    assert 0 < found.forced <= found.bound <= found.rounds == plain.summary()["metrics"]["nfe"]
    assert found.efficiency == found.bound / found.rounds
    assert f"{found.bits_per_round:.3f}" in shown
    assert not RunBits.of(quota).bounded
    cell = Cell.of(quota, quota.summary())
    assert [COLUMNS[name].show(cell) for name in ("bound", "efficiency")] == ["-", "-"]
    cell = Cell.of(plain, plain.summary())
    assert COLUMNS["efficiency"].show(cell) == f"{found.efficiency:.2f}"


def test_tokens_one_by_one(
    run: Callable[..., RunFolder],
    options: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Greedy threshold decoding pays for its parallelism, one token per step does not."""
    fast = run("sampler=threshold", "sampler.threshold=0.5", "score_sequential=true", "limit=2")
    slow = run("sampler=low_confidence", "score_sequential=true", "limit=2")
    assert main([str(fast.path), str(slow.path)]) == 0
    assert "correlation" in capsys.readouterr().out
    found = RunBits.of(slow)
    assert found.scored and found.correlation == pytest.approx(0, abs=1e-4)
    assert RunBits.of(fast).sequential_bits > 0
    cell = Cell.of(slow, slow.summary())
    assert COLUMNS["correlation"].show(cell) in ("0.00", "-0.00")
    with pytest.raises(ConfigError, match="score_sequential=true writes into the traces"):
        measure(options("sampler=threshold", "score_sequential=true", "trace=false"))
    with pytest.raises(ConfigError, match="the sampler decides by verifier"):
        measure(options("sampler=deer", "trace=true", "score_sequential=true"))


def test_paths_that_can_not_be_taken_one_by_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What was asked for and is not there has a reason."""
    folder = written(tmp_path, "score_sequential=true")
    first, second = folder.traces()
    first = replace(first, sequential=[0.5, 0.9])
    second.steps.append(step(0, 0.9, first=2, remasked=[0]))
    (folder.path / "traces.jsonl.gz").write_bytes(pack_traces([first]) + pack_traces([second]))
    assert main([str(folder.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "threshold: score_sequential=true has no bits one by one for 1 of 2 samples" in said
    assert "took tokens back" in said


def test_labels_say_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The task where there are several, whatever else the folder where labels are alike."""
    one, other, third = (
        written(tmp_path, *options)
        for options in (["task=listops"], ["task=latin"], ["task=listops", "score_sequential=true"])
    )
    (one.path / "summary.json").unlink()
    assert told_apart([RunBits.of(one)])[0].label == "threshold"
    found = [run.label for run in told_apart([RunBits.of(one), RunBits.of(other)])]
    assert found == ["threshold, listops", "threshold, latin"]
    found = [run.label for run in told_apart([RunBits.of(one), RunBits.of(third)])]
    assert found == [f"threshold {one.path.name}", f"threshold {third.path.name}"]
    link = tmp_path / "latest"
    link.symlink_to(one.path)
    assert RunBits.of(RunFolder(link)).label == "threshold"


def test_an_incomplete_run_and_a_doubled_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path)
    traces, samples = folder.path / "traces.jsonl.gz", folder.path / "samples.jsonl"
    whole = RunBits.of(folder)
    traces.write_bytes(traces.read_bytes() + pack_traces(folder.traces()[:1]))
    assert RunBits.of(folder) == whole
    assert main([str(folder.path)]) == 0
    assert "of 2 samples" not in capsys.readouterr().out
    samples.write_text(samples.read_text().splitlines()[0] + "\n")
    assert main([str(folder.path)]) == 0
    assert capsys.readouterr().out.count("threshold: 1 of 2 samples") == 1


def test_the_run_table_shows_bits(
    run: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, silent = run("sampler=threshold"), run("sampler=factor", "trace=false")
    print_comparison([silent.summary()], [silent.path])
    assert "bits/round" not in capsys.readouterr().out
    print_comparison([one.summary() for one in (plain, silent)], [plain.path, silent.path])
    shown = capsys.readouterr().out
    found = RunBits.of(plain)
    assert f"{found.bits_per_round:.2f}" in shown and f"{found.efficiency:.2f}" in shown


def test_the_run_table_shows_the_canvases_of_branches(tmp_path: Path) -> None:
    """Beside the forwards, whatever the canvas was cut to."""
    number = COLUMNS_OF_RUNS.index("NFE")
    plain = write_run(tmp_path, "threshold", [sample("a")])
    branching = write_run(tmp_path, "ete", [sample("a", aux_forwards=9, tokens=[5, 1])])
    assert cells(RunFolder(plain).summary())[number] == "4.0"
    assert cells(RunFolder(branching).summary())[number] == "4.0 (13.0 canvases)"


def test_runs_without_what_is_needed(
    run: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    silent = run("sampler=threshold", "trace=false")
    assert main([str(silent.path)]) == 2
    assert "has no traces: decode with trace=true" in capsys.readouterr().err
    (silent.path / "samples.jsonl").write_text('{"id": "of another version"}\n')
    assert main([str(silent.path)]) == 2
    assert "line 1: aux_forwards is missing or unknown; the run's own" in capsys.readouterr().err
    (silent.path / "samples.jsonl").write_text('{"id": "cut off by a kill"')
    assert main([str(silent.path)]) == 2
    assert "has no finished samples" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="hold no probabilities"):
        SequenceBits.of(Trace("a", 4, 0, [replace(step(0, 0.5), probabilities=[])]), 4, None)


def written(root: Path, *options: str) -> RunFolder:
    """A run of two samples with traces, not decoded."""
    samples = [sample("a"), sample("b")]
    folder = RunFolder(write_run(root, "threshold", samples, "trace=true", *options))
    traces = [Trace(one.id, 4, 0, [step(0, 0.5, 0.9, opened=(0, 4))]) for one in samples]
    (folder.path / "traces.jsonl.gz").write_bytes(b"".join(pack_traces([t]) for t in traces))
    return folder


def refused(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command says."""
    assert main([str(folder.path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert str(folder.path) in said
    return said


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"positions": [0, 9]}, r"step 1: positions=[0, 9] are no positions below 4"),
        ({"positions": [-1, 1]}, r"step 1: positions=[-1, 1] are no positions below 4"),
        ({"positions": [0, 1.0]}, "are no positions below 4"),
        ({"positions": 3}, "fields that a trace does not have, or lacks"),
        ({"positions": [0]}, "tokens has 2 entries for 1 positions"),
        ({"tokens": [5]}, "tokens has 1 entries for 2 positions"),
        ({"tokens": [5, "x"]}, "tokens or edits hold what is no token"),
        ({"probabilities": [0.5]}, "probabilities has 1 entries for 2 positions"),
        ({"probabilities": [0.5, 1.5]}, "are not all in [0, 1]"),
        ({"probabilities": [0.5, -0.1]}, "are not all in [0, 1]"),
        ({"probabilities": [0.5, float("nan")]}, "are not all in [0, 1]"),
        ({"probabilities": [0.5, "0.5"]}, "are not all in [0, 1]"),
        ({"scores": [0.5]}, "scores has 1 entries for 2 positions"),
        ({"remasked": [4]}, "remasked=[4] are no positions below 4"),
        ({"edits": [[5, 1]]}, "edits=[5] are no positions below 4"),
        ({"edits": [[1]]}, "fields that a trace does not have, or lacks"),
        ({"block": "0"}, "fed=8 or block='0' is no count"),
        ({"opened": [0]}, "opened=(0,) is no span"),
        ({"length": -1}, "length=-1 is no length"),
        ({"fill": [2]}, "fill=(2,) is no position and token"),
        ({"inserted": [[7, 2]]}, "inserted=[(7, 2)] is not within 4 positions"),
        ({"kind": "guess"}, "fields that a trace does not have, or lacks"),
        ({"unheard": 1}, "fields that a trace does not have, or lacks"),
    ],
)
def test_a_step_that_can_not_be(
    change: dict[str, Any], wrong: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = written(tmp_path)
    first, second = folder.traces()
    data = second.to_json()
    data["steps"][0].update(change)

    class Changed(Trace):
        def to_json(self) -> dict[str, Any]:
            return data

    changed = pack_traces([first]) + pack_traces([Changed("b", 4, 0)])
    (folder.path / "traces.jsonl.gz").write_bytes(changed)
    said = refused(folder, capsys)
    assert "traces.jsonl.gz holds no trace of sample b (trace 2: " in said and wrong in said


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"gen_length": "4"}, "sample_id, gen_length or mask_id is no such thing"),
        ({"sequential": [0.5]}, "sequential has 1 entries for 2 commits"),
        ({"sequential": [0.5, float("nan")]}, "sequential holds what is no probability"),
        ({"given": [1] * 5}, "given is no list of at most 4 tokens"),
    ],
)
def test_a_trace_that_can_not_be(change: dict[str, Any], wrong: str) -> None:
    trace = Trace.from_json({**Trace("a", 4, 0, [step(0, 0.5, 0.9)]).to_json(), **change})
    assert trace.contradiction() == wrong
    for mask in (0, NO_MASK):
        assert Trace("a", 4, mask, [step(0, 0.5, 0.9)], given=[mask]).contradiction() is None


def test_files_of_a_run_that_are_damaged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = written(tmp_path)
    assert main([str(folder.path)]) == 0
    capsys.readouterr()
    traces = folder.path / "traces.jsonl.gz"
    whole = traces.read_bytes()
    for data, wrong in (
        (whole[:-9], "sample b (trace 2 is cut off)"),
        (whole[: len(whole) // 2], "sample b (the file ends before it)"),
        (whole[:20], "sample a (trace 1 is cut off)"),
        (b"", "sample a (the file ends before it)"),
        (b"no gzip", "sample a (trace 1 is not compressed as a trace is)"),
    ):
        traces.write_bytes(data)
        said = refused(folder, capsys)
        assert "traces.jsonl.gz" in said and wrong in said
    for data in (b"no gzip", pack_traces([Trace("b", -4, 0)])):
        traces.write_bytes(whole + data)
        assert "traces.jsonl.gz, trace 3" in refused(folder, capsys)
    traces.write_bytes(whole + whole[:20])  # what a kill leaves
    assert main([str(folder.path)]) == 0
    capsys.readouterr()
    samples = folder.path / "samples.jsonl"
    lines = samples.read_text()
    for line, wrong in (
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"id": "c"}', "aux_forwards is missing or unknown"),
        (lines.splitlines()[0], "a second line of 'a'"),
    ):
        samples.write_text(f"{lines}{line}\n")
        assert f"samples.jsonl, line 3: {wrong}; the run's own" in refused(folder, capsys)
    samples.write_text(lines)
    traces.write_bytes(pack_traces([Trace("a", 4, 0), Trace("b", 4, 0)]))
    assert "hold no round in which anything was decided" in refused(folder, capsys)
    traces.write_bytes(whole)

    summary = folder.path / "summary.json"
    for text in ("{", "[]", "{}", json.dumps({"label": 3})):
        summary.write_text(text)
        assert "summary.json" in refused(folder, capsys)
    summary.unlink()
    assert main([str(folder.path)]) == 0
    capsys.readouterr()

    config = folder.path / "config.yaml"
    fine = config.read_text()
    config.write_text(fine.replace("threshold: 0.9", "threshold: 0.8"))
    assert "is not the configuration that identity.json names" in refused(folder, capsys)
    (folder.path / "identity.json").unlink()
    for text in (
        "a: [",
        "- 1",
        "\x00",
        "version: 2",
        "sampler: threshold\ntask: {}",
        "sampler: 3\ntask: {}",
        "sampler: {}\ntask: {}",
        "sampler: null\ntask: {}",
        "sampler: ${oops}\ntask: {}",
        "sampler: {_target_: os.getcwd}\ntask: {}",
        "sampler: {_target_: samplers.threshold.Threshold}\ntask: {}",
        "sampler: {_target_: dllm.cache.none.NoCache}\ntask: {}",
        fine.replace("threshold: 0.9", "threshold: often"),
        fine.replace("threshold: 0.9", "threshold: 9"),
    ):
        assert text != fine
        config.write_text(text)
        assert "config.yaml" in refused(folder, capsys)

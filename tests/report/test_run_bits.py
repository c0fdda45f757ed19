"""Bits of decoded sequences, from their traces to columns and the command line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_decoding import sampler
from toy_model import decoded, rounds

from dllm.errors import ConfigError
from dllm.metrics.bits import Budget
from dllm.report.bits import RunBits, SequenceBits
from dllm.report.cells import Cell, measure
from dllm.report.columns import COLUMNS
from dllm.report.tables import print_comparison
from dllm.runs.folder import RunFolder
from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace
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


@pytest.mark.parametrize(
    ("options", "floor"),
    [
        (["sampler=threshold", "sampler.threshold=0.7"], 0.7),
        (["sampler=localleap", "sampler.relaxed_threshold=0.6"], 0.6),
        (["sampler=factor", "sampler.factor=0.6", "sampler.last_rank_quirk=false"], 0.7),
        (["sampler=factor"], None),
        (["sampler=threshold", "sampler/logits_transform=credit"], None),
        (["sampler=low_confidence"], None),
    ],
)
def test_what_rules_imply(options: list[str], floor: float | None) -> None:
    budget: Budget | None = sampler(*options).budget()
    assert (budget is None) == (floor is None)
    if budget is not None:
        assert budget.floor == pytest.approx(floor)


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


def test_runs_without_what_is_needed(
    run: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    silent = run("sampler=threshold", "trace=false")
    assert main([str(silent.path)]) == 2
    assert "has no traces: decode with trace=true" in capsys.readouterr().err
    (silent.path / "samples.jsonl").write_text('{"id": "of another version"}\n')
    assert main([str(silent.path)]) == 2
    assert "has no finished samples that this version can read" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="hold no probabilities"):
        SequenceBits.of(Trace("a", 4, 0, [replace(step(0, 0.5), probabilities=[])]), 4, None)

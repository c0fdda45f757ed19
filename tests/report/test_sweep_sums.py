"""Sweeps summed up, against values worked out by hand."""

from pathlib import Path

import pytest
from sample_results import sample
from written_runs import answers, write_run

from dllm.report.existing import read_runs
from dllm.report.groups import grouped
from dllm.report.sweeps import Setting, speeds, sweeps
from scripts.report import main


def test_a_setting_is_a_mean_over_the_kinds() -> None:
    # kind a: two samples of four positions, one forward each; kind b: one of four, four forwards
    samples = [
        sample("1", task="a", tokens=[4] * 4, effective=2, forwards={"step": 1}),
        sample("2", task="a", tokens=[4] * 4, effective=2, forwards={"step": 1}, correct=False),
        sample("3", task="b", tokens=[4] * 4, effective=2, forwards={"step": 4}, correct=False),
    ]
    assert Setting.of(samples) == Setting(tpf=1.0, per_forward=2.5, score=25.0)


def test_speeds_at_levels() -> None:
    settings = [
        Setting(tpf=1.0, per_forward=1.0, score=80.0),
        Setting(tpf=3.0, per_forward=4.0, score=78.0),
        Setting(tpf=6.0, per_forward=8.0, score=70.0),
    ]
    # the third point is 10 points below the first: it is left out of the AUP
    between = {"AUP": "232.4", "PB90": "-", "PB80": "1.00", "PB70": "8.00", "PB60": "8.00"}
    assert speeds(settings, 80.0, interpolate=True) == between
    near = [Setting(tpf=1, per_forward=1, score=85), Setting(tpf=3, per_forward=3, score=75)]
    assert speeds(near, 85, interpolate=True)["PB80"] == "2.00"
    assert speeds(near, 85, interpolate=False)["PB80"] == "1.00"
    nothing = [Setting(tpf=1, per_forward=1, score=0), Setting(tpf=2, per_forward=2, score=0)]
    assert speeds(nothing, 0, interpolate=True)["AUP"] == "0.0"


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """Thresholds, numbers of steps, block lengths, and runs that differ in more."""
    root = tmp_path / "runs"
    for correct, forwards, option in (
        (8, 8, "sampler.threshold=0.9"),
        (6, 4, "sampler.threshold=0.7"),
    ):
        grades = [number < correct for number in range(10)]
        write_run(root, "threshold", answers(grades, forwards), option)
        other = answers(grades, forwards)
        write_run(root, "threshold", other, option, "cache=dual") if correct == 8 else None
    for correct, forwards, steps in ((8, 32, 32), (4, 16, 16)):
        grades = [number < correct for number in range(10)]
        options = (f"sampler.steps={steps}", "gen_length=32", "sampler.region.block_length=32")
        write_run(root, "low_confidence", answers(grades, forwards), *options)
    for correct, length in ((8, 16), (7, 32)):
        grades = [number < correct for number in range(10)]
        write_run(root, "random", answers(grades, 32), f"sampler.region.block_length={length}")
    return root


def test_runs_that_differ_in_one_number_are_a_sweep(swept: Path, tmp_path: Path) -> None:
    (group,) = grouped(read_runs([swept]), None)
    found = {option: list(runs) for option, runs in sweeps(group)}
    assert found == {
        "sampler.threshold": [0.7, 0.9],
        "sampler.steps": [16.0, 32.0],
        "sampler.region.block_length": [16.0, 32.0],
    }
    output = tmp_path / "page.html"
    assert main([str(swept), "--output", str(output)]) == 0
    lines = output.with_suffix(".md").read_text().splitlines()
    by_option = {
        line.split("|")[2].strip(): line for line in lines if " = " in line and "|" in line
    }
    # 1 item per step at 80 %, 2 at 40 %: (1 * 80 + 2 * 40) / 120
    assert "1.33" in by_option["steps = 16, 32"]
    # 10 points over 16 positions
    assert "+0.62" in by_option["region.block_length = 16, 32"]
    assert "threshold = 0.7, 0.9" in by_option


def test_no_sweep_no_section(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    write_run(root, "threshold", answers([True] * 3, 4))
    write_run(root, "localleap", answers([True] * 3, 4))
    (group,) = grouped(read_runs([root]), None)
    assert list(sweeps(group)) == []
    write_run(root, "random", answers([None] * 3, 4))  # without grades
    (group,) = grouped(read_runs([root]), None)
    assert list(sweeps(group)) == []

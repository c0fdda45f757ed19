"""Rules on exact probabilities beside their closed forms."""

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from sample_results import sample

from dllm.report import page
from dllm.report.cells import Cell
from dllm.report.exact import Point, decoded, draw, of_cells, section
from dllm.report.suite import Exact, load_suite
from dllm.runs.folder import RunFolder


EXACT = Exact(
    title="Exact",
    text="Text.",
    kinds=["shuffle"],
    items=[4],
    count=40,
    per_step=[1, 3, 4],
    rows={"random": ["sampler=random", "sampler/proposer=gumbel"]},
    adaptive={"threshold 0.51": ["sampler=threshold", "sampler.threshold=0.51"]},
)


@pytest.fixture(scope="module")
def points() -> list[Point]:
    return list(decoded(EXACT))


def test_steps_that_do_not_divide_are_left_out(points: list[Point]) -> None:
    assert [p.row for p in points] == ["random, k = 1", "random, k = 4", "threshold 0.51"]


def test_one_item_per_step_is_never_wrong(points: list[Point]) -> None:
    one, all_at_once, threshold = points
    assert (one.correct, one.nfe, one.ideal, one.bits) == (40, 4.0, 1.0, 0.0)
    assert all_at_once.nfe == 1 and all_at_once.correct < 40
    assert all_at_once.ideal == pytest.approx(0.09375) and all_at_once.bits == pytest.approx(
        3.415, abs=1e-3
    )
    assert (threshold.correct, threshold.nfe, threshold.ideal) == (40, 4.0, None)


def test_a_word_stands_only_where_the_test_carries_it(points: list[Point]) -> None:
    text = "\n".join(section(EXACT, points))
    assert "of 2 rows: 0 differ from it, 2 are not refuted" in text.replace("\n", " ")
    wrong = [points[0], replace(points[1], correct=40)]
    text = "\n".join(section(EXACT, wrong)).replace("\n", " ")
    assert "1 differ from it (random, k = 4 on shuffle of 4 (1.000 for 0.094))" in text


def cell(folder: Path, steps: int | None) -> Cell:
    config = {"gen_length": 4, "task": {"kinds": ["shuffle"]}, "sampler": {"steps": steps}}
    config |= {"model": {}, "cache": {}, "constraint": {}}
    OmegaConf.save(config, folder / "config.yaml")
    samples = [sample("a", correct=True), sample("b", correct=False)]
    return Cell({"accuracy": 0.5, "n": 2, "nfe": 2.0}, samples, RunFolder(folder))


def test_runs_become_points_and_a_picture(tmp_path: Path, points: list[Point]) -> None:
    point = of_cells("k = 2", cell(tmp_path, 2))
    assert point is not None and (point.per_step, point.correct, point.accuracy) == (2, 1, 0.5)
    draw(EXACT, points, [point], tmp_path / "page-exact.png")
    assert (tmp_path / "page-exact.png").stat().st_size > 1000
    assert of_cells("threshold", cell(tmp_path, None)) is None
    assert of_cells("k", cell(tmp_path, 3)) is None


def test_the_best_of_a_sweep(tmp_path: Path) -> None:
    four, two, one = ({"step": n} for n in (4, 2, 1))
    folder = RunFolder(tmp_path)
    slow_samples = [sample("a", forwards=four), sample("b", forwards=four)]
    fast_samples = [sample("a", forwards=one, correct=False), sample("b", forwards=two)]
    slow = Cell({"nfe": 4.0, "accuracy": 1.0}, slow_samples, folder)
    fast = Cell({"nfe": 1.5, "accuracy": 0.5}, fast_samples, folder)
    said = page._best_of({"slow": slow, "fast": fast})
    assert "best of slow, fast" in said and "1.000 at 3.00 forwards" in said
    # four positions: 1.0 up to one per forward (slow), 0.5 from there to 4 / 1.5
    assert f"1 to 4 positions per forward: {0.5 * (4 / 1.5 - 1):.2f} of 3" in said
    # 100 % at 1 position per forward, 50 % at 8 / 3: 80 % at two fifths of the way
    assert "PB80 1.67" in page._summed_up({"slow": slow, "fast": fast}, 1.0)
    # (1 * 100 + 8 / 3 * 50) / 150
    parallel = page._parallelisability({"slow": slow, "fast": fast})
    assert "1.56; a flat accuracy would give 1.83" in parallel


def test_the_shipped_suite_has_it() -> None:
    (exact,) = load_suite("parallelbench").exact
    assert set(exact.kinds) == {"shuffle", "replace_random"}

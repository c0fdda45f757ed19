"""Reports on runs that exist."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from written_runs import answers, write_run

from dllm.errors import ConfigError
from dllm.report.existing import read_runs
from dllm.report.groups import grouped, words
from dllm.report.replay.source import Recorded
from dllm.runs.folder import SUPERSEDED
from scripts.report import main


HALF = [True, False] * 40


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline, a run that loses a quarter of the samples, one that loses none."""
    root = tmp_path_factory.mktemp("written")
    base = write_run(root, "low_confidence", answers([True] * 80, 32))
    worse = [index % 4 > 0 for index in range(80)]
    write_run(root, "threshold", answers(worse, 4), baseline=base)
    write_run(root, "localleap", answers([True] * 80, 8), baseline=base)
    return root


@pytest.fixture
def runs(written: Path, tmp_path: Path) -> dict[str, Path]:
    copied = shutil.copytree(written, tmp_path / "runs")
    names = ("low_confidence", "threshold", "localleap")
    return {name: next((copied / name).iterdir()) for name in names}


class Page(HTMLParser):
    """What a page would fetch, the tags that it holds, and its tables."""

    def __init__(self, text: str):
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            inside = (value or "").startswith("#")
            if name in ("src", "href", "xlink:href", "srcset", "action") and not inside:
                self.fetched.append(str(value))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def report(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_word_stands_only_where_a_test_carries_it(runs: dict[str, Path]) -> None:
    (group,) = grouped(read_runs([runs["threshold"], runs["localleap"]]), None)
    found, said = words([group], 0.05)
    names = group.names()
    spoken = {(names[a], names[b]): str(word) for (_, a, b), word in said.items()}
    assert spoken == {
        ("threshold", "low_confidence"): "worse",
        ("localleap", "low_confidence"): "equal",
    }
    assert found["0", "1", "3"].difference == -0.25
    assert group.speed_up("1") == (8.0, 8.0, 8.0)
    assert {names[number] for number in group.frontier()} == {"threshold", "localleap"}


def test_nothing_is_tested_beside_a_run_that_solves_nothing(tmp_path: Path) -> None:
    base = write_run(tmp_path, "low_confidence", answers([False] * 80, 32))
    other = write_run(tmp_path, "threshold", answers([True] * 80, 4), baseline=base)
    (group,) = grouped(read_runs([other]), None)
    found, said = words([group], 0.05)
    assert list(found) == [("0", "1", "2")] and said == {}


def test_the_page_and_its_copies(runs: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out" / "page.html"
    assert report(*runs.values(), "--output", output, "--csv", tmp_path / "all.csv") == 0
    page = Page(output.read_text())
    assert page.fetched == [] and page.tags.count("svg") == 1 and page.tags.count("script") == 1
    assert any("-0.250 [" in cell for cell in page.cells) and "worse" in page.cells
    text = output.with_suffix(".md").read_text()
    for heading in ("Paired tests", "Forwards by difficulty", "What differs", "Accuracy against"):
        assert f"### {heading}" in text
    assert "| by some | 2 threshold | 20 | 0.000 [0.000, 0.161] | 4.00 |" in text
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert output.with_suffix(f".{kind}").read_bytes().startswith(start)
    with open(tmp_path / "all.csv", newline="") as file:
        lines = {line["label"]: line for line in csv.DictReader(file)}
    kept = json.loads((runs["threshold"] / "summary.json").read_text())["metrics"]
    for name in ("n", "accuracy", "nfe", "tpf", "tokens_per_second", "padding_share"):
        assert float(lines["threshold"][name]) == kept[name]
    assert lines["threshold"]["verdict"] == "worse" and lines["threshold"]["baseline"] != ""
    assert float(lines["threshold"]["speedup"]) == 8.0


def test_the_same_runs_make_the_same_page(runs: dict[str, Path], tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        output = tmp_path / "page.html"
        assert report(*runs.values(), "--output", output) == 0
        copies = (output.with_suffix(f".{kind}") for kind in ("html", "md", "svg"))
        made.append([copy.read_bytes() for copy in copies])
    assert made[0] == made[1]


def test_what_a_model_wrote_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> | `x` ![a](http://example.org/a.png)\n# head"
    write_run(tmp_path, "threshold", answers(HALF, 4, output=evil, prompt=evil))
    write_run(tmp_path, "localleap", answers([True] * 80, 4, output="plain", prompt=evil))
    output = tmp_path / "page.html"
    assert report(tmp_path, "--output", output) == 0
    page = Page(output.read_text())
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert sum(cell == evil for cell in page.cells) >= 20
    text = output.with_suffix(".md").read_text()
    assert "<script" not in text and "](http" not in text and "\n# head" not in text
    line = next(line for line in text.splitlines() if "alert(1)" in line)
    assert line.count("|") == 6


def test_whole_folders_leave_out_what_was_superseded(runs: dict[str, Path], tmp_path: Path) -> None:
    old = runs["localleap"]
    old.parent.joinpath(SUPERSEDED).mkdir()
    old.rename(old.parent / SUPERSEDED / old.name)
    found = [run.label for run in read_runs([tmp_path / "runs"])]
    assert sorted(found) == ["low_confidence", "threshold"]


def test_a_sweep(runs: dict[str, Path], tmp_path: Path) -> None:
    sweep = tmp_path / "runs" / "sweeps" / "today"
    sweep.mkdir(parents=True)
    moved = Path("elsewhere", *runs["threshold"].parts[-2:])
    lines = [
        {"job": 0, "folder": str(moved)},
        {"job": 1, "code": 1, "error": "failed"},
        {"job": 2, "folder": str(runs["localleap"])},
    ]
    sweep.joinpath("jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # The baseline comes by itself.
    found = [run.label for run in read_runs([sweep, runs["threshold"]])]
    assert found == ["threshold", "localleap", "low_confidence"]


def test_a_chosen_baseline(runs: dict[str, Path]) -> None:
    for named in ("localleap", runs["localleap"].name, str(runs["localleap"])):
        (group,) = grouped(read_runs(list(runs.values())), named)
        names = group.names()
        beside = {names[a]: names[b] for a, b in group.baselines.items()}
        assert beside == {"low_confidence": "localleap", "threshold": "localleap"}


def test_runs_of_other_samples_are_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "wino", answers([True] * 5, 4), "limit=5")
    groups = grouped(read_runs([tmp_path / "runs"]), None)
    assert sorted(len(group.runs) for group in groups) == [1, 3]


def test_runs_without_grades(tmp_path: Path) -> None:
    base = write_run(tmp_path, "low_confidence", answers([None] * 3, 8))
    write_run(tmp_path, "threshold", answers([None] * 3, 4, output="Bea"), baseline=base)
    output = tmp_path / "page.html"
    assert report(tmp_path, "--output", output) == 0
    text = output.with_suffix(".md").read_text()
    assert "no grades" in text and "Bea" in text and "2.00 [2.00, 2.00]" in text


def test_a_preset_stands_beside_its_published_row(tmp_path: Path) -> None:
    given = ["experiment=localleap/gsm8k_llada", "model=tiny-llada", "gen_length=64"]
    path = write_run(tmp_path, "localleap", answers(HALF, 4), *given)
    output = tmp_path / "page.html"
    assert report(path, "--output", output) == 0
    line = next(li for li in output.with_suffix(".md").read_text().splitlines() if "77.71" in li)
    assert "50.0 [39.3, 60.7] (n = 80)" in line and "4.32" in line
    assert "gen_length=64 (preset: 256)" in line and "model.name=tiny-llada (preset:" in line


def test_recipe_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = write_run(tmp_path, "threshold", answers(HALF, 4))
    theirs = write_run(
        tmp_path,
        "localleap",
        answers([True] * 80, 4),
        "model=tiny-sdar",
        "seed=3",
        "sampler.region.block_length=16",
        environment={"torch": "2.12.0", "device": "cpu (x86_64)"},
    )
    assert report("diff", ours, theirs) == 0
    said = capsys.readouterr().out
    ranked = (
        "model.name",
        "sampler.region.block_length",
        "sampler.radius",
        "seed",
        "version torch",
    )
    places = [said.index(f"│ {name} ") for name in ranked]
    assert places == sorted(places)
    assert "80 samples in both (80 and 80): 80 with the same tokens, 40 graded otherwise" in said
    assert report("diff", ours, ours) == 0
    assert "same options, samples, weights" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent is no run folder and holds none"),
        (["RUNS", "--baseline", "odd"], "--baseline odd is none of the runs: l"),
        (["RUNS", "--margin", "2"], "--margin 2.0 is outside (0, 1)"),
        (["RUNS", "--output", "page.txt"], "--output page.txt must end with .html"),
        (["diff", "absent", "RUNS"], "absent is no run folder: it has no config.yaml"),
        (["UNFINISHED"], "is not finished (its own command goes on with it): it has no summary"),
        (["PARENT"], "threshold holds no finished run (a run's own command goes on with it)"),
    ],
)
def test_one_line_errors(
    arguments: list[str],
    message: str,
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unfinished = runs["threshold"]
    if {"UNFINISHED", "PARENT"} & {*arguments}:
        (unfinished / "summary.json").unlink()
    places = {"RUNS": tmp_path / "runs", "UNFINISHED": unfinished, "PARENT": unfinished.parent}
    assert report(*(places.get(argument, argument) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_texts_that_no_file_can_hold_are_shown_escaped(tmp_path: Path) -> None:
    lone, drawn = "a\ud800b", "$x_1"
    write_run(tmp_path, "threshold", answers(HALF, 4, output=lone, prompt=lone, task=drawn))
    write_run(tmp_path, "localleap", answers([True] * 80, 4, prompt=lone))
    for summary in tmp_path.rglob("summary.json"):
        held = json.loads(summary.read_text())
        summary.write_text(json.dumps(held | {"label": f"{drawn}$", "task": f"{drawn} {{$"}))
    output = tmp_path / "page.html"
    assert report(tmp_path, "--output", output, "--csv", tmp_path / "all.csv") == 0
    assert "a\\ud800b" in output.read_text() and f"{drawn}$" in (tmp_path / "all.csv").read_text()


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "identity.json"])
def test_a_damaged_file_is_one_line(
    runs: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for held in (b"", b"{", b"\xff", b"[]", b"null", b"a: 1"):
        (runs["threshold"] / name).write_bytes(held)
        assert report("diff", runs["threshold"], runs["localleap"]) == 2
        error = capsys.readouterr().err
        assert str(runs["threshold"] / name) in error and error.count("\n") == 1


def test_a_damaged_sample_is_one_line(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads the run: nothing is made of the rest of it."""
    with open(runs["threshold"] / "samples.jsonl", "a") as file:
        file.write("{}\n")
    for command in (["diff", runs["threshold"], runs["localleap"]], [runs["threshold"]]):
        assert report(*command) == 2
        error = capsys.readouterr().err
        assert re.search(r"samples.jsonl, line \d+: .* is missing", error)
        assert error.count("\n") == 1
    with pytest.raises(ConfigError, match=r"samples.jsonl, line \d+: .* is missing"):
        Recorded(runs["threshold"])


def test_a_damaged_sweep_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for held in (b"{", b"\xff", b"1\n"):
        (tmp_path / "jobs.jsonl").write_bytes(held)
        assert report(tmp_path) == 2
        error = capsys.readouterr().err
        assert "jobs.jsonl is damaged" in error and error.count("\n") == 1


def test_a_place_that_cannot_be_written_is_one_line(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "page.html", tmp_path):
        options = ["--output", tmp_path / "page.html", "--csv"]
        assert report(runs["low_confidence"], *options, place) == 2
        error = capsys.readouterr().err
        assert str(tmp_path) in error and error.count("\n") == 1


def test_the_table_comes_before_what_explains_it(runs: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    assert report(*runs.values(), "--output", output) == 0
    lines = output.with_suffix(".md").read_text().splitlines()
    assert lines[0] == "# 3 runs: demo"
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## demo, 80 samples, tiny-llada", "## How to read it"]
    assert "1 low_confidence" in output.with_suffix(".svg").read_text()  # a point's name

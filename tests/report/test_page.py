"""A page made from a small suite on a random checkpoint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from written_cells import cell

from dllm.errors import ConfigError
from dllm.report.page import Measured, over_all, write_page
from dllm.report.suite import Chapter, Suite


ROWS = {
    "one token per step": ["sampler=low_confidence"],
    "threshold 0.9": ["sampler=threshold"],
    "threshold 0.1": ["sampler=threshold", "sampler.threshold=0.1"],
    "localleap": ["sampler=localleap"],
    "wedlm": ["sampler=wedlm", "~sampler.region.block_length"],
}


@pytest.fixture
def suite(options: Callable[..., list[str]]) -> Suite:
    common = [o for o in options() if not o.startswith(("limit", "sampler.region"))]
    block = "sampler.region.block_length=8"
    chapter = Chapter(
        "A model",
        "A text.",
        ["n", "accuracy", "NFE"],
        {"listops": ["task=listops"]},
        {name: [*o, block] for name, o in ROWS.items() if name != "wedlm"},
        options=common,
        further_rows={"wedlm": ["sampler=wedlm"]},
        curve=["one token per step", "threshold 0.9"],
        beside={"localleap": ["threshold 0.9"]},
        same_tokens={"threshold 0.9": "one token per step"},
    )
    return Suite("mine", "A title", "A text.", "absent", 4, 0.05, [chapter])


def test_a_page(suite: Suite, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert write_page(suite, 4, page) == page
    text = page.read_text()
    assert text.startswith("# A title\n\n`python -m scripts.report suite mine --limit 4`\n")
    lines = text.splitlines()
    for row in ("one token per step", "threshold 0.9", "localleap"):
        assert any(line.startswith(f"| {row} ") and "| 4 " in line for line in lines)
    assert "Refused: wedlm (" in text and "NFE: forwards per sample." in text
    assert "### Beside the simpler row" in text and "### What is to be reproduced" in text
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_its_first_row_is_none(suite: Suite, tmp_path: Path) -> None:
    (chapter,) = suite.chapters
    rows = {"wedlm": chapter.further_rows["wedlm"], **chapter.rows}
    without = replace(suite, chapters=[replace(chapter, rows=rows, further_rows={})])
    with pytest.raises(ConfigError, match="needs a causal model"):
        write_page(without, 4, tmp_path / "page.md")
    assert not list(tmp_path.glob("page.*"))


def test_a_page_with_a_frontier() -> None:
    right, half = [True] * 50, [True, False] * 25
    cells = {
        "easy": {"slow": cell(right, 8), "fast": cell(right, 4), "lossy": cell(half, 2)},
        "hard": {"slow": cell(right, 8), "fast": cell(half, 4), "lossy": cell(half, 4)},
    }
    chapter = Chapter("A model", "A text.", ["NFE"], {}, {}, frontier=True)
    measured = Measured(chapter, cells, {}, 0.05)
    assert measured.frontier("easy") == ["fast", "lossy"]
    assert measured.frontier("hard") == ["slow", "fast", "lossy"]  # a tie is on it twice
    assert measured.line("easy") == ("frontier", ["fast", "lossy"])
    rows = [line.split("|") for line in over_all(measured).splitlines()[2:]]
    assert [[entry.strip() for entry in row[1:6]] for row in rows] == [
        ["lossy", "2", "easy, hard", "0.500", "3.00"],
        ["fast", "2", "easy, hard", "0.750", "4.00"],
        ["slow", "2", "hard", "1.000", "8.00"],
    ]


def test_names_that_do_not_exist(suite: Suite, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    with pytest.raises(ConfigError, match="--rows 'odd' is not one of localleap, one token"):
        write_page(suite, 4, page, rows=["odd"])
    with pytest.raises(ConfigError, match="--tasks 'odd' is not one of listops"):
        write_page(suite, 4, page, tasks=["odd"])
    assert not page.exists()


def test_nothing_is_tested_on_a_floor(suite: Suite) -> None:
    wrong, right = [False] * 50, [True] * 50
    cells = {
        "hard": {"a": cell(wrong, 8), "b": cell(wrong, 4)},
        "easy": {"a": cell(right, 8), "b": cell(right, 4)},
    }
    chapter = replace(suite.chapters[0], curve=[], beside={"b": ["a"]})
    measured = Measured(chapter, cells, {}, 0.05)
    assert measured.floors() == {"hard": 0.0} and measured.ceilings() == {"easy": 1.0}
    assert set(measured.beside()) == {("hard", "b", "a"), ("easy", "b", "a")}

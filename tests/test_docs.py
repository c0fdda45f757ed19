"""Pages under docs/: their code runs, their tables are current, every method has one."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm.config import choices
from dllm.errors import ConfigError
from dllm.report import legal, manual
from scripts.bench import BENCHES


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:<!-- file: (\S+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
GUIDES = (
    "own_sampler",
    "own_data",
    "python_api",
    pytest.param("caches_and_constraints", marks=pytest.mark.slow),  # a command of the suite's own
)


def commands(page: Path, folder: Path) -> Iterator[list[str]]:
    """What a reader would run, in order, then the page's Python as one program; files are written
    on the way."""
    program = ""
    for name, kind, code in BLOCK.findall(page.read_text()):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(code)
        elif kind == "bash":
            yield ["bash", "-euc", code]
        elif kind == "python":
            program += code
    if program:
        yield [sys.executable, "-c", program]


@pytest.mark.parametrize("name", GUIDES)
def test_the_code_of_a_page_runs(name: str, tmp_path: Path) -> None:
    places = [Path(sys.executable).parent, os.environ["PATH"]]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(map(str, places)),
        "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT))),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    for command in commands(DOCS / f"{name}.md", tmp_path):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stderr)


def test_tables_of_the_method_pages_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stale = [
        page.name
        for page in (DOCS / "methods").glob("*.md")
        if manual.written(page) != page.read_text()
    ]
    assert stale == [], "python -m scripts.report docs"


def test_the_page_of_legal_pairs_is_current() -> None:
    page = legal.page()
    assert page == (ROOT / legal.PAGE).read_text(), "python -m scripts.report docs"
    for word in ("| threshold | + |", "## Reasons", "1. "):
        assert word in page


def test_every_sampler_has_one_page_and_the_index_every_page() -> None:
    pages = sorted((DOCS / "methods").glob("*.md"))
    found = [
        name
        for page in pages
        for kind, names in manual.NAMED.findall(page.read_text())
        if kind == "samplers"
        for name in names.split()
    ]
    assert sorted(found) == choices("sampler")
    index = (DOCS / "README.md").read_text()
    for page in pages:
        assert f"(methods/{page.name})" in index


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)


def test_knobs_are_read_as_they_are_written() -> None:
    found = {knob.name: (knob.default, knob.meaning) for knob in manual.knobs("sampler/freedave")}
    assert found["draft_steps"] == ("4", "canvases per forward, the certain one included, >= 1")
    assert found["verify.max_batch"][0] == "null" and "_target_" not in found
    assert manual.parts("sampler/localleap")[:2] == ["region: fixed", "proposer: greedy"]


def test_a_page_without_marks(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A page\n")
    with pytest.raises(ConfigError, match="has no region between"):
        manual.written(tmp_path / "page.md")


def test_the_page_of_benches_names_each() -> None:
    named = re.findall(
        r"^\|.*`python -m scripts\.bench (\w+)` \|", (DOCS / "benches.md").read_text(), re.M
    )
    assert sorted(named) == sorted(BENCHES)

"""Published figures: the shipped files, and what a broken one is told."""

from pathlib import Path

import pytest

from dllm.config import choices
from dllm.errors import ConfigError
from dllm.report.published import FOLDER, MARKS, publications, read
from scripts.report import main


ROOT = Path(__file__).parents[2]
GOOD = """sampler: threshold
paper: P
source: S
rows:
  - {model: m, benchmark: b, setting: 's', accuracy: 1.5, speed: '3 TPS[x]', speedup: 2, mark: P}
"""


def test_shipped_files() -> None:
    shipped = list(publications(ROOT / FOLDER))
    assert len(shipped) >= 10
    known = choices("sampler")
    for publication in shipped:
        assert publication.sampler in known
        assert publication.rows
        assert all(row.mark in MARKS for row in publication.rows)


def test_fast_dllm_has_every_cell_of_its_tables() -> None:
    (fast,) = publications(ROOT / FOLDER, ["fast_dllm"])
    tables = [
        row
        for row in fast.rows
        if row.accuracy is not None
        and "gen_length 1024" not in row.setting
        and "8-shot" not in row.setting
    ]
    assert len(tables) == 2 * 8 * 4
    assert sum("TPS[canvas+prompt]" in (row.speed or "") for row in tables) == 8


def test_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.yaml").write_text(GOOD)
    assert main(["published", "--folder", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "one: P (sampler=threshold)" in shown
    assert "3 TPS[x]" in shown and "1.50" in shown and "2.00" in shown
    assert "S = second hand" in shown


def test_unknown_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.yaml").write_text(GOOD)
    assert main(["published", "two", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: two has no file in {tmp_path}; it holds one\n"


def test_a_folder_without_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "--folder", str(tmp_path)]) == 2
    assert "holds no .yaml file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("mark: P", "mark: X"), "row 0: mark=X is not one of O, P, R, S, inferred"),
        (GOOD.replace("model: m, ", ""), r"row 0: missing \['model'\]"),
        (GOOD.replace("speedup", "faster"), r"unknown \['faster'\]"),
        (GOOD.replace("paper: P\n", ""), "must hold exactly sampler, paper, source, rows"),
        ("a: [", "one.yaml: "),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read(path)

"""`~` is the home folder in every path option."""

from pathlib import Path

import pytest

from scripts import background, bits, report
from scripts.command_line import user_path


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x" and user_path("a/~") == Path("a/~")


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (report.main, ["published", "absent", "--folder=~/odd"]),
        (background.main, ["~/odd/corpus.txt", "--output=~/odd.json"]),
        (bits.main, ["~/odd"]),
    ],
)
def test_commands_name_the_folder_in_full(
    main, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(arguments) == 2
    assert str(tmp_path / "odd") in capsys.readouterr().err

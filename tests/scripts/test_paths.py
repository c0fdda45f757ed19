"""`~` is the home folder in every path option."""

from pathlib import Path

import pytest

from scripts import background, bits, report
from scripts.command_line import user_path, with_home


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x" and user_path("a/~") == Path("a/~")


def test_paths_that_hydra_does_not_read_or_makes_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in (
        ("hydra.sweep.dir=~/x", f'hydra.sweep.dir="{tmp_path}/x"'),
        ('hydra.sweep.dir="~/x"', f'hydra.sweep.dir="{tmp_path}/x"'),
        ("hydra.run.dir=~", f'hydra.run.dir="{tmp_path}"'),
        ("output=~/a b", f'output="{tmp_path}/a b"'),
        ("task.path=~", f'task.path="{tmp_path}"'),
        ("task.path=~/it's (1)", f'task.path="{tmp_path}/it\'s (1)"'),
        ("task.path=a,~/b,~", f'task.path=a,"{tmp_path}/b","{tmp_path}"'),
        ("task.path=[a,~/b]", "task.path=[a,~/b]"),
        ('task.prompt="a,~/b"', 'task.prompt="a,~/b"'),
        ('output="~/x"', 'output="~/x"'),  # the configuration's own work
        ("--config-dir=~/x", "--config-dir=~/x"),
        ("hydra.sweep.dir=a~/x", "hydra.sweep.dir=a~/x"),
        ("~sampler.radius", "~sampler.radius"),
    ):
        assert with_home([given]) == [expected]


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

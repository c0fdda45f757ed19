"""`~` is the home folder in every path option."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dllm.config import check_complete
from dllm.errors import ConfigError
from scripts import background, bench, bits, conform, models, replay, report, run
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
        ("task.path=/home/jürgen/it's [1]", 'task.path="/home/jürgen/it\'s [1]"'),
        ("output=/a#b,/c=d", 'output="/a#b","/c=d"'),
        ("task.path=/home/a b", "task.path=/home/a b"),
        ("constraint.pattern=jürgen", "constraint.pattern=jürgen"),
        ('task.prompt="a,~/b"', 'task.prompt="a,~/b"'),
        ('output="~/x"', 'output="~/x"'),  # the configuration's own work
        ("constraint.pattern=~/a", 'constraint.pattern="~/a"'),  # no path: only quoted
        ("--config-dir=~/x", f"--config-dir={tmp_path}/x"),
        ("hydra.sweep.dir=a~/x", 'hydra.sweep.dir="a~/x"'),
        ("~sampler.radius", "~sampler.radius"),
    ):
        assert with_home([given]) == [expected]
    for flag in ("--config-dir", "-cd"):
        assert with_home([flag, "~/x", "seed=1"]) == [flag, f"{tmp_path}/x", "seed=1"]


def test_only_paths_of_a_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    texts = {"pattern": "~/a", "prompt": "~", "stop_sequences": ["~/a"], "think_end": "~/"}
    names = "output outputs export convert data path adapter filter background grammar schema"
    names = f"{names} verifier tokenizer start questions table key_file folder".split()
    paths = dict.fromkeys(names, "~/a")
    config = OmegaConf.create({"own": {**texts, **paths, "files": ["~/a", {"path": "~/b"}]}})
    check_complete(config)
    full = {name: str(tmp_path / "a") for name in paths}
    files = [str(tmp_path / "a"), {"path": str(tmp_path / "b")}]
    assert config.own == {**texts, **full, "files": files}


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


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (bench, ["samplers", "random", "--out", ""]),
        (background, ["a.txt", "--output="]),
        (bits, ["runs", "--picture="]),
        (conform, ["a.json", "--data="]),
        (models, ["measure", "name", "--questions="]),
        (replay, ["runs", "--output="]),
        (report, ["runs", "runs", "--csv="]),
        (report, ["schemas", ""]),
    ],
)
def test_an_empty_path_is_one_line(
    module, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("sys.argv", ["", *arguments])
    given = [] if module in (bench, models) else [arguments]
    with pytest.raises(SystemExit) as stop:
        module.main(*given)
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    assert said.err.startswith("error: ") and said.err.endswith("is empty\n")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("option", ["task.path", "model.adapter", "own.files", "output"])
def test_an_empty_path_of_a_configuration(option: str) -> None:
    config = OmegaConf.create({})
    OmegaConf.update(config, option, ["a", ""] if option == "own.files" else "")
    with pytest.raises(ConfigError, match=f"^{option}= is empty$"):
        check_complete(config)


def test_an_empty_folder_of_a_sweep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run", "-m", "seed=1,2", "hydra.sweep.dir="])
    with pytest.raises(SystemExit) as stop:
        run.main()
    assert (stop.value.code, capsys.readouterr().err) == (2, "error: hydra.sweep.dir= is empty\n")
    assert not list(tmp_path.iterdir())

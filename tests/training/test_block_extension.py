"""Larger blocks in stages and in one jump: courses, table and its command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_training import ends_as_if_undisturbed

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.training import block_extension
from dllm.training.block_extension import execute


@pytest.fixture
def extension(block_checkpoint: Path, tmp_path: Path) -> Callable[..., None]:
    """Runs a few steps from a random model with blocks of four."""

    def run(*more: str) -> None:
        options = [
            "tracker=none",
            f"output={tmp_path / 'run'}",
            f"table={tmp_path / 'table.md'}",
            f"tokenizer={block_checkpoint / 'tokenizer.json'}",
            f"extension.start={block_checkpoint}",
            "extension.items=1",
            "extension.recipe.total_steps=4",
            "extension.recipe.tokens_per_micro=128",
            "+extension.recipe.compile=false",
        ]
        execute(compose([*options, *more], "train_block_extension"))

    return run


def test_the_shipped_recipe_builds() -> None:
    config = compose([], "train_block_extension")
    shipped = build(config.extension, "extension")
    assert shipped.courses() == {"progressive": [16, 32], "direct": [32]}
    assert shipped.recipe.total_steps % len(shipped.sizes) == 0
    # Answers to be learnt fit beside their prompts.
    assert list(shipped.recipe.stages["main_canvas"].lengths) == [48, 64]


def test_both_courses_and_their_table(extension: Callable[..., None], tmp_path: Path) -> None:
    extension("extension.sizes=[8,16]")
    text = (tmp_path / "table.md").read_text()
    assert "n = 11 held-out samples per cell (1 of each of 11 kinds" in text
    assert "| block size | checkpoint | progressive | direct |" in text
    assert [line.split(" | ")[0] for line in text.splitlines()[-3:]] == ["| 4", "| 8", "| 16"]
    command = text.split("`")[1]
    assert command.startswith("python -m scripts.train block_extension extension.start=")
    assert "'extension.sizes=[8, 16]' extension.items=1 extension.recipe.total_steps=4" in command
    trained = {}
    for path in sorted((tmp_path / "run").rglob("config.json")):
        trained[str(path.relative_to(tmp_path / "run"))] = json.loads(path.read_text())
    assert {name: config["block_size"] for name, config in trained.items()} == {
        "direct/block-16/model/config.json": 16,
        "progressive/block-8/model/config.json": 8,
        "progressive/block-16/model/config.json": 16,
    }
    # Both courses have made the same number of steps; finished ones are not trained again.
    before = {path: path.read_bytes() for path in _states(tmp_path)}
    extension("extension.sizes=[8,16]")
    assert {path: path.read_bytes() for path in _states(tmp_path)} == before
    assert (tmp_path / "table.md").read_text() == text


def _states(folder: Path) -> list[Path]:
    return sorted((folder / "run").rglob("state.pt"))


def test_killed_anywhere_it_ends_as_if_undisturbed(
    extension: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_extension, "accuracy", lambda *_: {"copy": 0.0})

    def train(output: Path) -> None:
        more = ["extension.recipe.total_steps=2", "+extension.recipe.save_minutes=0"]
        extension("extension.sizes=[8]", f"output={output}", *more)

    files = [f"{course}/block-8/model/model.safetensors" for course in ("progressive", "direct")]
    ends_as_if_undisturbed(monkeypatch, train, tmp_path, *files)


@pytest.mark.parametrize("sizes", ["[8,4]", "[4,8]", "[2]"])
def test_sizes_that_do_not_ascend_are_refused(
    extension: Callable[..., None], tmp_path: Path, sizes: str
) -> None:
    with pytest.raises(ConfigError, match="do not ascend from the block of 4"):
        extension(f"extension.sizes={sizes}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("extension.recipe.total_steps=5", "total_steps=5 are not shared evenly by 2 stages"),
        ("extension.recipe.total_steps=0", "extension.recipe.total_steps=0 must be >= 1"),
        ("extension.recipe.tokens_per_micro=-1", "extension.recipe.tokens_per_micro=-1 must be"),
        ("extension.recipe.rates.decay=2", "extension.recipe.rates.decay=2 is outside"),
        ("extension.items=0", "extension.items=0 must be >= 1"),
        ("extension.sizes=[]", "extension.sizes="),
        ("extension.recipe.seed=x", "extension.recipe.seed='x' is not of type int"),
    ],
)
def test_options_that_make_no_course_are_refused(
    extension: Callable[..., None], tmp_path: Path, option: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        extension("extension.sizes=[8,16]", option)
    assert words in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_another_recipe_in_the_folder_is_refused(
    extension: Callable[..., None], tmp_path: Path
) -> None:
    extension("extension.sizes=[8]")
    for change in ("extension.recipe.total_steps=2", "extension.recipe.seed=7"):
        with pytest.raises(ConfigError, match=r"holds a training with .*: choose another folder"):
            extension("extension.sizes=[8]", change)

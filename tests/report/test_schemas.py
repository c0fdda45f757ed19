"""The page of schemas: what is told of each, and that a second run goes on where the first was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm.errors import ConfigError
from dllm.report.schemas import examine, in_turn, page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    schemas = {
        "good/age": {"type": "object", "properties": {"age": {"type": "integer"}}},
        "good/long": {"type": "array", "items": {"type": "null"}, "minItems": 100},
        "odd/keyword": {"typo": 1},
        "odd/never": False,
    }
    for name, schema in schemas.items():
        path = tmp_path / "schemas" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema))
    return tmp_path / "schemas"


def test_every_schema_is_told_of(
    folder: Path, tmp_path: Path, options: Callable[..., list[str]]
) -> None:
    kept = tmp_path / "kept.jsonl"
    given = [option for option in options() if not option.startswith(("gen_length", "limit"))]
    found = examine(folder, given, kept, 1000.0)
    outcomes = {one.schema: one.outcome for one in found}
    assert outcomes == {
        "good/age.json": "valid",
        "good/long.json": "too short",
        "odd/keyword.json": "refused",
        "odd/never.json": "refused",
    }
    text = page(found, 4, "the command")
    assert "2 compile (50.0%)" in text
    assert "- odd/keyword.json: refused: #: unknown keyword typo" in text
    # all is known: no time is needed
    assert examine(folder, given, kept, 0.0) == found


def test_none_of_them_compiles_and_a_kill(
    tmp_path: Path, options: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "text.json").write_bytes(b"\xff")
    (tmp_path / "odd" / "typo.json").write_text('{"typo": 1}')
    kept = tmp_path / "kept.jsonl"
    given = [option for option in options() if not option.startswith(("gen_length", "limit"))]
    found = examine(tmp_path / "odd", given, kept, 1000.0)
    assert [one.outcome for one in found] == ["refused", "refused"]
    assert "0 compile (0.0%). A refusal" in page(found, 2, "the command").replace("\n", " ")
    kept.write_text(kept.read_text()[:-9])
    assert len(examine(tmp_path / "odd", given, kept, 1000.0)) == 2
    assert len(kept.read_text().splitlines()) == 2


def test_sets_take_turns(folder: Path) -> None:
    names = [str(file.relative_to(folder)) for file in in_turn(folder)]
    assert names == ["good/age.json", "odd/keyword.json", "good/long.json", "odd/never.json"]


def test_a_folder_without_schemas(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no \.json file"):
        examine(tmp_path, [], tmp_path / "kept.jsonl", 1.0)

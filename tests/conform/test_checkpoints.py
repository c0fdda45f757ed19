"""Which folder is the checkpoint that a trace names."""

from pathlib import Path

import pytest

from dllm.conform.checkpoints import find
from dllm.conform.recorded import Places
from dllm.errors import ConfigError


def folder(at: Path, content: str = "{}") -> Path:
    """`at` holds a checkpoint of the name `model` with that content."""
    (at / "model").mkdir(parents=True)
    (at / "model" / "config.json").write_text("{}")
    (at / "model" / "model.safetensors").write_text(content)
    return at


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "recorded" / "traces" / "trace.json"


def test_the_folder_beside_the_trace_goes_before_others(tmp_path: Path, trace: Path) -> None:
    beside = folder(tmp_path / "recorded" / "models", "right")
    other = folder(tmp_path / "other", "wrong")
    assert find("model", trace, Places(fallback=(other,))) == beside / "model"
    assert find("model", trace, Places(checkpoints=(other,))) == other / "model"
    assert find("model", trace, Places(checkpoints=(other / "model",))) == other / "model"


@pytest.mark.parametrize("asked", [True, False])
def test_two_that_differ_are_refused(asked: bool, tmp_path: Path, trace: Path) -> None:
    def places(*names: str) -> Places:
        folders = tuple(tmp_path / name for name in names)
        return Places(checkpoints=folders) if asked else Places(fallback=folders)

    for name in ("a", "b", "also"):
        folder(tmp_path / name, name[0])
    assert find("model", trace, places("a", "also")) == tmp_path / "a" / "model"
    with pytest.raises(ConfigError, match=r"checkpoint model differs between .*a/model and .*b/m"):
        find("model", trace, places("a", "b"))
    # What loading does not read makes no difference, a file more does.
    (tmp_path / "also" / "model" / "old.json").mkdir()
    assert find("model", trace, places("a", "also")) == tmp_path / "a" / "model"
    (tmp_path / "also" / "model" / "generation_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="checkpoint model differs"):
        find("model", trace, places("a", "also"))


def test_one_that_is_nowhere_is_looked_for_everywhere(tmp_path: Path, trace: Path) -> None:
    places = Places((tmp_path / "asked",), (tmp_path / "default",))
    with pytest.raises(ConfigError, match=r"model is in none of .*asked, .*models, .*default"):
        find("model", trace, places)

"""IFEval: checked by the harness's copy of the authors' program; what it lacks is named first."""

import json
from pathlib import Path

import pytest

from dllm.errors import ConfigError
from dllm.tasks import ifeval
from dllm.tasks.ifeval import IFEval


@pytest.fixture
def task(tmp_path: Path) -> IFEval:
    row = {
        "key": 1,
        "prompt": "Say hello in lower case without commas.",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": [{}, {"keywords": ["hello"]}],
    }
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    return IFEval(str(tmp_path))


@pytest.fixture
def sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder where nltk looks for its data: these instructions need none of its content."""
    nltk = pytest.importorskip("nltk")
    for name in ("lm_eval", "langdetect", "immutabledict"):
        pytest.importorskip(name)
    (tmp_path / "nltk" / "tokenizers" / "punkt_tab").mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("text", "correct", "loose", "instructions"),
    [
        ("hello there", True, 1.0, 1.0),
        ("hello, there", False, 0.0, 0.5),
        ("Well, sure:\nhello there", False, 1.0, 0.5),
        ("", False, 0.0, 0.0),
    ],
)
def test_instructions(
    task: IFEval, sentences: None, text: str, correct: bool, loose: float, instructions: float
) -> None:
    (sample,) = task.samples("test")
    grade = task.assess(sample, text)
    assert (grade.correct, grade.unparsed) == (correct, not text)
    assert grade.scores == {"loose": loose, "instructions": instructions}


def test_what_lacks_is_named(task: IFEval, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifeval, "find_spec", lambda name: None if name == "lm_eval" else True)
    with pytest.raises(ConfigError, match="needs the packages lm-eval"):
        task.samples("test")


def test_missing_data_is_named(task: IFEval, monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(ifeval, "find_spec", lambda name: True)
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(ConfigError, match="nltk's tokenizers/punkt_tab"):
        task.samples("test")

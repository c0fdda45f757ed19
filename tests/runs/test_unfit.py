"""A prompt that does not fit the model: named, counted as not correct, never cut."""

from pathlib import Path

import pytest

from dllm.config import compose
from dllm.engine.setting import DoesNotFit
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


def options(folder: Path, *questions: str) -> list[str]:
    path = folder / "test.jsonl"
    rows = [f'{{"question": "{question}", "answer": "#### 2"}}' for question in questions]
    path.write_text("\n".join(rows))
    return [
        "task=gsm8k",
        f"task.path={path}",
        "task.shots=0",
        f"output={folder / 'runs'}",
        "tracker=none",
        "progress=false",
        "limit=null",
    ]


def test_it_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(tmp_path, "1 + 1?", "1 + " * 500)
    folder, summary = execute(compose(given), "localleap")
    assert summary["metrics"]["n"] == 2
    assert (summary["metrics"]["unfit"], summary["metrics"]["failed"]) == (1, 0)
    assert "exceeds the model's 512 positions: counted as not correct" in capsys.readouterr().err
    unfit = next(sample for sample in RunFolder(folder).samples() if sample.unfit)
    assert (unfit.correct, unfit.nfe, unfit.tokens) == (False, 0, [])


def test_if_none_fits_nothing_is_run(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="exceeds the model's 512 positions"):
        execute(compose(options(tmp_path, "1 + " * 500)), "localleap")
    assert not list((tmp_path / "runs").rglob("samples.jsonl"))

"""`python -m scripts.grade`: what it prints and how it refuses."""

import json
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from dllm.tasks.listops import ListOperations
from scripts import grade
from scripts.command_line import CommandLine


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scripts.grade", *arguments])
        monkeypatch.setattr(grade, "COMMAND", CommandLine())
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as stop:
            grade.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_accuracy_is_printed_per_kind_and_in_all(command, tmp_path: Path) -> None:
    samples = ListOperations(kinds=["copy", "reverse"]).samples("test", 4)
    path = tmp_path / "outputs.jsonl"
    path.write_text("\n".join(json.dumps({"id": s.id, "output": s.answer}) for s in samples))
    code, out, err = command("task=listops", "task.kinds=[copy,reverse]", f"outputs={path}")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "copy: 2/2 correct, accuracy 1.0000 [0.3424, 1.0000]",
        "reverse: 2/2 correct, accuracy 1.0000 [0.3424, 1.0000]",
        "all: 4/4 correct, accuracy 1.0000 [0.5101, 1.0000]",
        "396 samples of the task have no output and are not counted",
    ]


def test_mistakes_are_one_line(command, tmp_path: Path) -> None:
    assert command("task=listops")[::2] == (2, "error: outputs must be given\n")
    code, out, err = command("task=listops", "outputs=nowhere.jsonl")
    assert (code, out) == (2, "")
    assert err == "error: outputs=nowhere.jsonl: No such file or directory\n"
    code, _, err = command("task=parallelbench", "outputs=nowhere.jsonl")
    assert code == 2 and err.startswith("error: task.path=null")

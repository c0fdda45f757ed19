"""Signals that come at an awkward moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import forked

from dllm.runs import stopping
from scripts.command_line import CommandLine


IMPORTED = """
import signal, sys
from scripts.command_line import CommandLine

class Finder:
    met = False

    def find_spec(self, name, path, target=None):
        if name == "numpy" and not Finder.met:
            Finder.met = True
            for number in given:
                signal.raise_signal(number)

given = [getattr(signal, name) for name in sys.argv[1:]]
for number in given:
    signal.signal(number, signal.SIG_DFL)
sys.meta_path.insert(0, Finder())

def command():
    import torch

    for _ in range(100):
        torch.zeros(1).numpy()
        __import__("time").sleep(0.1)
    print("went on")

sys.exit(CommandLine().plain(command))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_torch_imports_numpy_is_no_lost_one(name: str) -> None:
    command = [sys.executable, "-c", IMPORTED, name]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (128 + getattr(signal, name), "")
    assert ended.stderr == f"error: stopped by {name}\n"


def test_two_signals_while_something_is_imported_end_the_process() -> None:
    command = [sys.executable, "-c", IMPORTED, "SIGINT", "SIGINT"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_a_signal_in_the_last_import_is_told(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "met_by_a_signal.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert CommandLine().plain(lambda: __import__("met_by_a_signal") and None) == 130
    assert capsys.readouterr().err == "error: stopped by SIGINT\n"


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    def hung_up() -> int:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stopping.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
        return 3

    assert forked(hung_up, tmp_path / "said").ended() == (3, "")

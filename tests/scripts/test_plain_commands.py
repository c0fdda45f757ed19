"""Commands without Hydra: the lines and exit codes of `CommandLine.plain`."""

import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from forked import forked

from dllm.errors import ConfigError, RunError
from dllm.runs.lock import locked_output
from scripts.command_line import CommandLine


SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("why"), 2, "why"),
        (RunError("why"), 1, "why"),
        (OSError(28, "Disk full", "x.json"), 1, "x.json can't be used: Disk full"),
    ],
)
def test_an_error_is_one_line(
    error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        warnings.warn("look", UserWarning, stacklevel=1)
        raise error

    with warnings.catch_warnings():
        assert CommandLine().plain(fails) == code
    assert capsys.readouterr() == ("", f"warning: look\nerror: {words}\n")


def test_a_library_that_cannot_log_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with open("/dev/full", "w", buffering=1) as full:
        handler, logger = logging.StreamHandler(full), logging.getLogger("a library")
        logger.addHandler(handler)
        assert CommandLine().plain(lambda: logger.error("x")) == 0
        logger.removeHandler(handler)
        with suppress(OSError):
            full.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("closed", [False, True])
def test_stdout_that_takes_no_more_is_no_file(closed: bool, tmp_path: Path) -> None:
    """Inside of a folder that is written, too."""

    def prints() -> None:
        with locked_output(tmp_path / "output", 0):
            print("progress", flush=True)

    def refused() -> int:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer if closed else os.open("/dev/full", os.O_WRONLY), 1)
        return CommandLine().plain(prints)

    code, said = forked(refused, tmp_path / "said").ended()
    words = "" if closed else "error: stdout can't be written: No space left on device\n"
    assert (code, said) == (1, words)


def test_stopped_with_words_that_stdout_does_not_take(tmp_path: Path) -> None:
    def stopped() -> None:
        print("progress")
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        signal.raise_signal(signal.SIGTERM)

    code, said = forked(lambda: CommandLine().plain(stopped), tmp_path / "said").ended()
    assert (code, said) == (143, "error: stopped by SIGTERM\n")


def test_nothing_to_say_is_success() -> None:
    with warnings.catch_warnings():
        assert CommandLine().plain(lambda: None) == 0
        assert CommandLine().plain(lambda: 1) == 1


@pytest.mark.parametrize("name", ["-m", "a program"])
def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_word(name: str) -> None:
    # A shell's background jobs, the tests among them, inherit that the signal is ignored.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"sys.argv = [{name!r}]; import scripts; signal.raise_signal(signal.SIGINT)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS.parent, capture_output=True)
    assert ended.returncode == -signal.SIGINT
    assert (b"KeyboardInterrupt" in ended.stderr) == (name != "-m")


def test_every_command_is_a_job_or_a_plain_one() -> None:
    for path in SCRIPTS.glob("*.py"):
        text = path.read_text()
        if path.name != "command_line.py" and '__name__ == "__main__"' in text:
            assert re.search(r"COMMAND\.(plain|run)\(", text), path

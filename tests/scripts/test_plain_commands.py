"""Commands without Hydra: the lines and exit codes of `CommandLine.plain`."""

import os
import re
import warnings
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


def test_nothing_to_say_is_success() -> None:
    with warnings.catch_warnings():
        assert CommandLine().plain(lambda: None) == 0
        assert CommandLine().plain(lambda: 1) == 1


def test_every_command_is_a_job_or_a_plain_one() -> None:
    for path in SCRIPTS.glob("*.py"):
        text = path.read_text()
        if path.name != "command_line.py" and '__name__ == "__main__"' in text:
            assert re.search(r"COMMAND\.(plain|run)\(", text), path

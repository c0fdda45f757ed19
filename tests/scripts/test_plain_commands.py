"""Commands without Hydra: the lines and exit codes of `CommandLine.plain`."""

import re
import warnings
from pathlib import Path

import pytest

from dllm.errors import ConfigError, RunError
from scripts.command_line import CommandLine


SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(("error", "code"), [(ConfigError, 2), (RunError, 1)])
def test_an_error_is_one_line(
    error: type[Exception], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        warnings.warn("look", UserWarning, stacklevel=1)
        raise error("why")

    with warnings.catch_warnings():
        assert CommandLine().plain(fails) == code
    assert capsys.readouterr() == ("", "warning: look\nerror: why\n")


def test_nothing_to_say_is_success() -> None:
    with warnings.catch_warnings():
        assert CommandLine().plain(lambda: None) == 0
        assert CommandLine().plain(lambda: 1) == 1


def test_every_command_is_a_job_or_a_plain_one() -> None:
    for path in SCRIPTS.glob("*.py"):
        text = path.read_text()
        if path.name != "command_line.py" and '__name__ == "__main__"' in text:
            assert re.search(r"COMMAND\.(plain|run)\(", text), path

"""A function in a process of its own, forked: what is imported need not be imported again."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Forked:
    pid: int
    output: Path
    """What it says, on stdout and stderr."""

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def ended(self) -> tuple[int, str]:
        """Exit code (minus the signal's number for one that a signal ended), output."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self.output.read_text(errors="replace")


def forked(
    function: Callable[[], int | None], output: Path, environment: Mapping[str, str] | None = None
) -> Forked:
    """Its exit code is what the function returns, None as 0; 70 for an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads: the models' are none here
        pid = os.fork()
    if pid:
        return Forked(pid, output)
    code = 70
    try:
        torch.set_num_threads(1)  # those of the parent do not exist here, and would be waited for
        os.environ.update(environment or {})
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
        code = function() or 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)

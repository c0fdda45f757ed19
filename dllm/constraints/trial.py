"""Libraries that can't be interrupted are tried in a process that can."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

from dllm.clock import Deadline, Undecided
from dllm.constraints.errors import GrammarError


PROCESS = Path(__file__).with_name("trial_process.py")


def tried(deadline: Deadline, **given: object) -> None:
    """Returns once the process has done what it was given (`trial_process.py`).

    Raises `Undecided` if it takes more processor time than is left, in whole seconds, and
    `GrammarError` if it died of it.
    """
    left = deadline.left
    if left <= 0:
        raise Undecided
    seconds = None if math.isinf(left) else math.ceil(left)
    done = subprocess.run(
        [sys.executable, "-I", str(PROCESS)],
        input=json.dumps({**given, "seconds": seconds}).encode(),
        capture_output=True,
    )
    if done.returncode == -signal.SIGXCPU:
        raise Undecided
    if done.returncode < 0:
        raise GrammarError(f"the process that compiled it was ended by signal {-done.returncode}")
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise GrammarError(f"the process that compiled it failed: {' '.join(last)}")

"""Programs judged by tests, in two jails (see `jail`)."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dllm.errors import ConfigError
from dllm.tasks.sandbox import wire


JAIL = Path(__file__).with_name("jail.py")


class Result(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    """The platform denies a part of the jail; nothing was run."""


@dataclass(frozen=True)
class Judgement:
    """What became of a program."""

    result: Result
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """Limits of one judgement."""

    seconds: float
    """Wall clock, start of both processes included."""
    memory_mb: int
    """Address space of each process."""

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds} must be > 0")
        if self.memory_mb < 64:
            raise ValueError(f"memory_mb={self.memory_mb} must be >= 64")

    def check(self) -> None:
        """Raises `ConfigError` where the platform can't contain a program."""
        reason = "only Linux has them" if sys.platform != "linux" else ""
        if not reason:
            code = "import heapq, statistics, string\ndef one(): return 1"
            found = self.judge(code=code, tests="assert one() == 1")
            reason = "" if found.result is Result.PASSED else found.reason or found.result
        if reason:
            raise ConfigError(
                f"generated programs are run in namespaces of Linux, which are not to be had here "
                f"({reason}); grade the outputs with scripts.grade where they are"
            )

    def judge(
        self, *, code: str, tests: str, support: str = "", names: list[str] | None = None
    ) -> Judgement:
        """Whether `tests` pass, run after the trusted `support` with `names` of the program (None:
        all that it defines) in reach."""
        calls, asked = os.pipe()
        answers, replies = os.pipe()
        verdict, verdicts = os.pipe()
        limits = {"seconds": int(self.seconds) + 1, "memory_bytes": self.memory_mb << 20}
        deadline = time.monotonic() + self.seconds
        try:
            with (
                _jail("program", {**limits, "calls": calls, "replies": replies, "code": code}),
                _jail(
                    "tests",
                    {
                        **limits,
                        "calls": asked,
                        "replies": answers,
                        "verdicts": verdicts,
                        "support": support,
                        "names": names,
                        "tests": tests,
                    },
                ),
            ):
                for pipe in (calls, replies, asked, answers, verdicts):
                    os.close(pipe)
                poll = select.poll()
                poll.register(verdict, select.POLLIN)
                if not poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
                    return Judgement(Result.TIMEOUT, f"no verdict in {self.seconds} s")
                try:
                    word, *reason = wire.receive(verdict)
                except EOFError:
                    return Judgement(Result.FAILED, "the tests ended without a verdict")
                return Judgement(Result(word), *reason)
        finally:
            os.close(verdict)


@contextmanager
def _jail(side: str, request: dict[str, Any]) -> Iterator[None]:
    """One side running; it is gone, with all it started, when the block is left."""
    pipes = [request[name] for name in ("calls", "replies", "verdicts") if name in request]
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as file:
        json.dump({**request, "scratch": scratch}, file)
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(JAIL), side],
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=pipes,
            env={},
            cwd="/",
            start_new_session=True,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()  # the jail ends after all that it holds

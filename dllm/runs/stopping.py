"""Ctrl-C and SIGTERM: what is being decoded is finished, nothing more begins; once more stops at
once. The command ends with the code that a shell expects, 128 + the signal's number."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """No failure: the user wanted an end. Not an `Exception`, so that no one takes it for one."""

    def __init__(self, number: int, done: str = "") -> None:
        self.code = 128 + number
        said = f"stopped by {signal.Signals(number).name}"
        super().__init__(f"{said}: {done}" if done else said)


class _Request:
    number: int | None = None
    """Signal that asked for the end."""
    graceful = False


_REQUEST = _Request()


@contextmanager
def listening() -> Iterator[None]:
    """Within it the signals are requests. Only for a command: a program that uses the package has
    its own ways."""
    _REQUEST.number, _REQUEST.graceful = None, False
    before = {number: signal.signal(number, _asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _REQUEST.number = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _asked(number: int, frame: FrameType | None) -> None:
    if not _REQUEST.graceful or _REQUEST.number is not None:
        raise Stopped(number)
    _REQUEST.number = number
    name = signal.Signals(number).name
    print(f"note: {name}: finishing what is begun; once more stops at once", file=sys.stderr)


def asked() -> bool:
    """Whether an end was asked for: begin nothing."""
    return _REQUEST.number is not None


@contextmanager
def finishing() -> Iterator[None]:
    """Within it a signal waits for what is begun to be finished (`asked`)."""
    _REQUEST.graceful = True
    try:
        yield
    finally:
        _REQUEST.graceful = False


def stop_if_asked(done: str) -> None:
    """Raises `Stopped` where an end was asked for; `done`: what is kept, for the user."""
    if _REQUEST.number is not None:
        raise Stopped(_REQUEST.number, done)

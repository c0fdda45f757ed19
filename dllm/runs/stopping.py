"""Ctrl-C, SIGTERM and a closed terminal: what is being decoded is finished, nothing more begins;
once more stops at once. The command ends with the code that a shell expects, 128 + the signal's
number."""

import _thread
import signal
import sys
import threading
import time
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
    waiting: int | None = None
    """Signal that came while a module was imported."""


_REQUEST = _Request()


def _numbers() -> Iterator[int]:
    yield from (signal.SIGINT, signal.SIGTERM)
    # nohup: the command is to outlive its terminal. Windows has none.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        yield signal.SIGHUP


@contextmanager
def listening() -> Iterator[None]:
    """Within it the signals are requests. Only for a command: a program that uses the package has
    its own ways."""
    _REQUEST.number, _REQUEST.graceful, _REQUEST.waiting = None, False, None
    before = {number: signal.signal(number, _asked) for number in _numbers()}
    try:
        yield
        if _REQUEST.waiting is not None:
            raise Stopped(_REQUEST.waiting)
    finally:
        _REQUEST.number = _REQUEST.waiting = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _asked(number: int, frame: FrameType | None) -> None:
    if _importing(frame):
        _wait(number)
        return
    if not _REQUEST.graceful or _REQUEST.number is not None:
        raise Stopped(number)
    _REQUEST.number = number
    name = signal.Signals(number).name
    print(f"note: {name}: finishing what is begun; once more stops at once", file=sys.stderr)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _wait(number: int) -> None:
    """The signal comes again once nothing is imported: an extension's import of another module may
    swallow what is raised within (torch's of numpy does), and leaves a broken module behind. A
    second one ends the process."""
    if _REQUEST.waiting is not None:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _REQUEST.waiting = number
    thread = threading.get_ident()

    def again() -> None:
        while _importing(sys._current_frames().get(thread)):
            time.sleep(0.01)
        if _REQUEST.waiting == number:
            _REQUEST.waiting = None
            _thread.interrupt_main(signal.Signals(number))

    _thread.start_new_thread(again, ())  # an object of `threading` takes locks


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

"""One process at a time: a lock file that the others wait for."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dllm.errors import ConfigError, RunError


@contextmanager
def locked(path: Path, wait_minutes: float, what: str) -> Iterator[None]:
    """Holds the lock file `path`; a line says so where another process has it.

    Raises `RunError` if it still has it after `wait_minutes`, and `OSError` where the file can't
    be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note = f"waiting for {what}: another process is writing it (wait_minutes={wait_minutes:g})"
        print(note, file=sys.stderr, flush=True)
        try:
            lock.acquire(timeout=60 * wait_minutes, poll_interval=0.2)
        except Timeout:
            raise RunError(
                f"{what} is still being written by another process after "
                f"wait_minutes={wait_minutes:g}"
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Within it files of the folder are used: one that the system refuses is a `RunError`."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise RunError(f"{where} can't be used: {error.strerror or error}") from None


@contextmanager
def locked_output(folder: Path, wait_minutes: float) -> Iterator[None]:
    """Creates the folder that `output` names and keeps other processes out of it.

    Raises `ConfigError` if it can't be written, `RunError` as `locked`, and if the system refuses a
    file within.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / ".lock", wait_minutes, f"output={folder}"))
        except OSError as error:
            raise ConfigError(f"output={folder} is not writable: {error.strerror}") from None
        with usable(folder):
            yield

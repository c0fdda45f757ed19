"""A training that dies at one of its saves."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dllm.training.checkpoints import Course


class _Killed(BaseException):
    """No `Exception`, which nothing may catch."""


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch, save: int, when: str) -> Iterator[None]:
    """What stands within is killed `when` ("before" or "after") it makes its save number `save`."""
    real, count = Course.save, 0

    def dies(course: Course, state: dict) -> None:
        nonlocal count
        count += 1
        if count != save:
            return real(course, state)
        if when == "after":
            real(course, state)
        raise _Killed

    with monkeypatch.context() as patched, pytest.raises(_Killed):
        patched.setattr(Course, "save", dies)
        yield

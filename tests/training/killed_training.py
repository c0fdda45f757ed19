"""A training that dies at one of its saves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dllm.training import sft
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


POINTS = [
    *(("save_model", call) for call in (1, 5)),
    *(("save_state", call) for call in (2, 3, 4)),
    ("accuracy", 1),
]
"""(function of `dllm.training.sft`, call that is the last thing a training does)."""


def ends_as_if_undisturbed(
    monkeypatch: pytest.MonkeyPatch, train: Callable[[Path], None], folder: Path, *files: str
) -> None:
    """Trainings that die at each point and go on write the same files as one that does not.

    `train(output)` trains in stages, three saves each (two steps, then what was measured).
    """
    measured = 0

    def accuracy(*_: object) -> dict[str, float]:
        nonlocal measured
        measured += 1
        return {"copy": 0.5}

    monkeypatch.setattr(sft, "accuracy", accuracy)
    train(folder / "whole")
    expected = [(folder / "whole" / file).read_bytes() for file in files]
    stages = measured
    for place, call in POINTS:
        output, measured = folder / f"{place}{call}", 0
        with monkeypatch.context() as patched, pytest.raises(_Killed):
            patched.setattr(sft, place, _dying(getattr(sft, place), call))
            train(output)
        train(output)
        assert [(output / file).read_bytes() for file in files] == expected, (place, call)
        assert measured >= stages, "nothing is left out"
    measured = 0
    train(folder / "whole")
    assert stages == 2 and measured == 0, "what is finished is not measured again"


def _dying(real: Callable[..., object], last: int) -> Callable[..., object]:
    """The function, whose call number `last` never comes to an end."""
    calls = 0

    def dies(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == last:
            raise _Killed
        return real(*arguments)

    return dies

"""The replay where no browser is: the same frames as text."""

from io import StringIO

from films import eventful, film_of, long_trace
from rich.console import Console

from dllm.report.replay.terminal import play


def played(*films, width: int = 120) -> str:
    stream = StringIO()
    play(films, 4.0, Console(file=stream, width=width))
    return stream.getvalue()


def test_every_forward_is_shown() -> None:
    shown = played(film_of(eventful()))
    assert [f"forward {k} of 6" in shown for k in range(8)] == [*[True] * 7, False]
    assert "2 of 6 decided" in shown and "step: committed 2; anchors 1; refused" in shown
    assert "tried, with their worth: sat 2, cat 5.25" in " ".join(shown.replace("│", "").split())
    assert "refresh: committed 1; edited 1; remasked 1; by the progress guard" in shown


def test_two_stand_side_by_side() -> None:
    shown = played(film_of(eventful(), "fast"), film_of(long_trace(32), "slow"))
    assert any("fast" in line and "slow" in line for line in shown.splitlines())


def test_a_token_cannot_steer_the_terminal() -> None:
    trace = eventful()
    trace.steps[1].tokens[0] = 8  # an escape sequence
    shown = played(film_of(trace))
    assert "\x1b" not in shown and "\\x1b[31m" in shown

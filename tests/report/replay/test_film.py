"""Frames say what the trace says, and nothing that did not change."""

from films import HOSTILE, MASK, TEXTS, eventful, film_of, long_trace

from dllm.report.replay import film
from dllm.step.trace import Trace


def texts(cells: list[film.Cell], of: film.Film) -> list[str | None]:
    return [None if cell.token == film.MASK else of.words[cell.token] for cell in cells]


def replayed(trace: Trace) -> list[list[str | None]]:
    return [[None if t == MASK else TEXTS[t] for t in canvas] for canvas in trace.replay()]


def test_canvases_are_those_of_the_trace() -> None:
    for trace in (eventful(), long_trace(128)):
        made = film_of(trace)
        start, *after = made.canvases()
        assert texts(start, made) == [None] * trace.gen_length
        assert [texts(cells, made) for cells in after] == replayed(trace)


def test_a_given_part_stands_from_the_start() -> None:
    trace = eventful()
    trace.given = [MASK, MASK, MASK, MASK, 3, 7]
    made = film_of(trace)
    start, *after = made.canvases()
    assert texts(start, made) == [None] * 4 + ["cat", "mat\n"]
    assert [texts(cells, made) for cells in after] == replayed(trace)


def test_a_frame_names_what_happened() -> None:
    frames = film_of(eventful()).frames
    assert [frame.events for frame in frames] == [
        {},
        {"committed": [0, 2]},
        {"committed": [1], "edited": [2], "remasked": [0]},
        {"committed": [0, 3], "inserted": [4, 5]},
        {"committed": [4], "inserted": [8], "filled": [5, 6, 7, 8]},
        {"cut": [7, 8]},
    ]
    assert [frame.bounds for frame in frames] == [*[(0, 4)] * 4, *[(4, 8)] * 2]
    assert frames[1].marks == {"anchors": [2]} and frames[2].forced
    assert frames[1].adopted == 1 and len(frames[1].branches) == 2


def test_refused_tokens_and_probabilities_are_kept() -> None:
    made = film_of(eventful())
    (refused,) = made.frames[1].refused
    assert (refused[0], made.words[refused[1]]) == (1, HOSTILE[0])
    canvases = list(made.canvases())
    assert [cell.probability for cell in canvases[2][:3]] == [0.97, None, 0.55]
    # An edit's is read from the alternatives of the forward that made it.
    assert canvases[3][2] == film.Cell(made.words.index(HOSTILE[1]), 0.8, 3)


def test_what_stays_is_not_said_again() -> None:
    made = film_of(long_trace(128))
    cells = sum(len(frame.cells) for frame in made.frames)
    assert cells == 128
    twice = eventful()
    twice.steps[2].considered = twice.steps[1].considered
    assert film_of(twice).frames[2].alternatives == []

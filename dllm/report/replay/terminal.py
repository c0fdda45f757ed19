"""The replay in a terminal: the same frames with rich, by the same keys."""

import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dllm.printable import printable
from dllm.report.replay.film import MASK, Cell, Film, Frame


_SHADES = (
    (0.4, "white on #b35806"),
    (0.7, "black on #f1a340"),
    (0.8, "black on #ebe6da"),
    (0.9, "black on #cfe1f0"),
    (0.99, "black on #6aa8d8"),
    (1.01, "white on #2f6fb0"),
)
"""Upper bound of the probability -> style; orange to blue, which every eye tells apart."""
_HELP = "space play/pause   ←/→ step   g/G start/end   q leave"


def play(films: Sequence[Film], speed: float, console: Console) -> None:
    """Plays on a terminal, forward by forward; elsewhere prints what each forward left."""
    canvases = [list(film.canvases()) for film in films]
    last = max(len(film.frames) for film in films)
    if not (console.is_terminal and sys.stdin.isatty()):
        for forward in range(last + 1):
            console.print(_shown(films, canvases, forward))
        return
    forward, playing = 0, True
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            help_line = Text(_HELP, style="dim")
            live.update(Group(_shown(films, canvases, forward), help_line), refresh=True)
            key = _pressed(1 / speed if playing else None)
            if key == "q":
                return
            playing = not playing if key == " " else playing and key is None
            moves = {None: int(playing), "right": 1, "left": -1, "g": -last, "G": last}
            forward = max(0, min(last, forward + moves.get(key, 0)))
            playing &= forward < last


def _shown(
    films: Sequence[Film], canvases: Sequence[Sequence[list[Cell]]], forward: int
) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in films:
        table.add_column(ratio=1)
    table.add_row(
        *(_panel(film, cells, forward) for film, cells in zip(films, canvases, strict=True))
    )
    return table


def _panel(film: Film, canvases: Sequence[list[Cell]], forward: int) -> Panel:
    at = min(forward, len(film.frames))
    cells = canvases[at]
    frame = film.frames[at - 1] if at else None
    decided = sum(cell.token != MASK for cell in cells)
    lines = [f"forward {at} of {len(film.frames)}, {decided} of {len(cells)} decided"]
    if frame is not None:
        lines.append(_told(film, frame))
    body = Group(_canvas(film, cells, frame), Text("\n".join(lines), style="dim"))
    return Panel(body, title=Text(film.title), title_align="left")


def _canvas(film: Film, cells: Sequence[Cell], frame: Frame | None) -> Text:
    fresh = set() if frame is None else set(frame.events.get("committed", ()))
    text = Text()
    for position, cell in enumerate(cells):
        if cell.token == MASK:
            text.append("·", style="dim")
        else:
            word = "∎" if cell.token in film.ends else _visible(film.words[cell.token])
            text.append(
                word, style=_style(cell.probability) + (" bold underline" * (position in fresh))
            )
        text.append(" ")
    return text


def _visible(word: str) -> str:
    """On one line, and without characters that a terminal would obey."""
    shown = word.replace("\n", "↵").replace("\t", "⇥").strip() or "␣"
    return printable(shown)


def _style(probability: float | None) -> str:
    if probability is None:
        return "reverse"
    return next(style for bound, style in _SHADES if probability < bound)


def _told(film: Film, frame: Frame) -> str:
    parts = [f"{name} {len(positions)}" for name, positions in frame.events.items()]
    parts += [f"{name} {len(positions)}" for name, positions in frame.marks.items()]
    parts += [f"refused {_visible(film.words[token])} at {at}" for at, token in frame.refused]
    if frame.forced:
        parts.append("by the progress guard")
    if frame.branches:
        parts.append(f"{len(frame.branches)} branches")
    if frame.worth:
        tried = (f"{_visible(film.words[token])} {worth:g}" for token, worth in frame.worth)
        parts.append(f"tried, with their worth: {', '.join(tried)}")
    return f"{frame.kind}: {'; '.join(parts) or 'nothing decided'}"


@contextmanager
def _keys() -> Iterator[None]:
    """Keys reach the program as they are pressed."""
    import termios  # where there is none (Windows), the page is the way
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(wait: float | None) -> str | None:
    """The next key; None when there was none for `wait` seconds (None = however long)."""
    if not select.select([sys.stdin], [], [], wait)[0]:
        return None
    typed = os.read(sys.stdin.fileno(), 8).decode(errors="ignore")
    return {"\x1b[C": "right", "\x1b[D": "left"}.get(typed, typed[:1])

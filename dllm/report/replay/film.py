"""One sample's decoding as frames: what changed in each cell of the answer, forward by forward.

Frame k (from 1) is what stood after forward k; before the first one everything is masked. A frame
holds what is new in it, so that a canvas of 2,048 positions over as many forwards stays small.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dllm.models.tokenizers import Tokenizer
from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace


MASK = -1
"""Token of a position that is not decided."""


class Cell(NamedTuple):
    """A position as it stands."""

    token: int
    """Index into `Film.words`; `MASK` = masked."""
    probability: float | None
    """The model's, of that token, in the forward that committed it."""
    forward: int
    """That wrote it."""


@dataclass(frozen=True)
class Frame:
    """What one forward brought; positions count from the start of the answer."""

    kind: ForwardKind
    fed: int
    """Rows computed."""
    block: int
    bounds: tuple[int, int] | None
    """[start, end) of the block; None before anything is decided in it."""
    window: list[tuple[int, int]]
    """Spans of positions computed; empty = the whole canvas."""
    length: int
    """Positions of the answer after the forward."""
    cells: list[tuple[int, int, float | None, int]]
    """(position, token, probability, forward) of every cell that is no longer as it was."""
    events: dict[str, list[int]]
    """What happened (committed, remasked, edited, filled, inserted, cut) -> positions."""
    marks: dict[str, list[int]]
    """The sampler's own names for positions."""
    alternatives: list[tuple[int, list[int], list[float]]]
    """(position, tokens, probabilities), where they differ from what the position had before."""
    refused: list[tuple[int, int]] = field(default_factory=list)
    """(position, token) that the constraint refused."""
    branches: list[list[tuple[int, int]]] = field(default_factory=list)
    """(position, token) of what each branch tried."""
    adopted: int | None = None
    worth: list[tuple[int, float]] = field(default_factory=list)
    """(token, what its branch was compared by), the first choice first."""
    forced: bool = False
    """The rule chose nothing: the progress guard committed."""
    rewritten: bool = False
    """The constraint wrote its own choice."""
    model: str | None = None
    """Another model than the canvas's."""


@dataclass(frozen=True)
class Film:
    """One sample under one setting."""

    title: str
    """The sampler and its options."""
    model: str
    task: str
    sample: str
    prompt: str
    answer: str
    correct: bool | None
    length: int
    """Masked positions at the start."""
    words: list[str]
    """Text of every token that occurs."""
    ends: list[int]
    """Indices of `words` that end an answer."""
    frames: list[Frame]
    alternatives: int
    """Most probable tokens known per predicted position; 0 = the trace holds none."""
    given: list[int] = field(default_factory=list)
    """Token of each position at the start; empty = all are masked."""
    fork: int | None = None
    """Forward after which other options hold."""

    def canvases(self) -> Iterator[list[Cell]]:
        """The answer before the first forward and after each one."""
        cells = [Cell(token, None, 0) for token in self.given or [MASK] * self.length]
        yield list(cells)
        for frame in self.frames:
            cells = (cells + [Cell(MASK, None, 0)] * frame.length)[: frame.length]
            for position, token, probability, forward in frame.cells:
                cells[position] = Cell(token, probability, forward)
            yield list(cells)


class Words:
    """Texts of token ids, in the order of their first use."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.texts: list[str] = []
        self._numbers: dict[int, int] = {}

    def number(self, token: int) -> int:
        if token not in self._numbers:
            self._numbers[token] = len(self.texts)
            self.texts.append(self._text(token))
        return self._numbers[token]

    def numbers(self, tokens: Sequence[int]) -> list[int]:
        return [number for token in tokens if (number := self._numbers.get(token)) is not None]

    def _text(self, token: int) -> str:
        spelled = self.tokenizer.token(token)
        text = self.tokenizer.decode([token], skip_special_tokens=False)
        if spelled is None:
            return f"#{token}"
        if not text or "\ufffd" in text:  # a part of a character, or nothing on its own
            return spelled
        # A decoder drops the space before the first word.
        return f" {text}" if spelled[0] in "▁Ġ" and text[0] != " " else text


def start_of(trace: Trace, words: Words) -> list[int]:
    """Tokens that a trace begins with; empty where all positions are masked."""
    return [MASK if token == trace.mask_id else words.number(token) for token in trace.given]


def frames_of(trace: Trace, words: Words) -> list[Frame]:
    """Frames of a trace, its tokens entered in `words`."""
    bounds = {step.block: step.opened for step in reversed(trace.steps) if step.opened is not None}
    start = start_of(trace, words) or [MASK] * trace.gen_length
    cells = [Cell(token, None, 0) for token in start]
    known: dict[int, tuple[list[int], list[float]]] = {}
    frames = []
    for forward, step in enumerate(trace.steps, start=1):
        before, events = cells, {}
        cells = _after(before, step, forward, trace.mask_id, words, events)
        changed = [
            (position, cell.token, cell.probability, cell.forward)
            for position, cell in enumerate(cells)
            if cell != (before[position] if position < len(before) else Cell(MASK, None, 0))
        ]
        found, new = step.considered, []
        for position, tokens, likely in [] if found is None else found.alternatives:
            entry = [words.number(token) for token in tokens], likely
            if known.get(position) != entry:
                known[position] = entry
                new.append((position, *entry))
        review = step.review
        branches = [] if found is None else found.branches
        frames.append(
            Frame(
                kind=step.kind,
                fed=step.fed,
                block=step.block,
                bounds=bounds.get(step.block),
                window=step.spans,
                length=len(cells),
                cells=changed,
                events=events,
                marks=step.marks,
                alternatives=new,
                refused=[] if review is None else _numbered(review.refused, words),
                branches=[_numbered(branch, words) for branch in branches],
                adopted=None if found is None else found.adopted,
                worth=[(words.number(token), round(worth, 4)) for token, worth in step.tried],
                forced=step.forced,
                rewritten=review is not None and review.rewritten,
                model=step.model,
            )
        )
    return frames


def _numbered(pairs: Sequence[tuple[int, int]], words: Words) -> list[tuple[int, int]]:
    return [(position, words.number(token)) for position, token in pairs]


def _after(
    cells: list[Cell],
    step: Step,
    forward: int,
    mask: int,
    words: Words,
    events: dict[str, list[int]],
) -> list[Cell]:
    """The cells after a step, in the order in which `Trace.replay` applies it; what happened goes
    to `events`."""
    cells = list(cells)
    written = [*zip(step.positions, step.tokens, strict=True)]
    likely = dict(zip(step.positions, step.probabilities, strict=False))
    if step.considered is not None:
        for position, tokens, probabilities in step.considered.alternatives:
            edited = dict(step.edits).get(position)
            if edited in tokens:
                likely[position] = probabilities[tokens.index(edited)]
    for position, token in [*written, *step.edits]:
        cells[position] = Cell(words.number(token), _short(likely.get(position)), forward)
    masked = Cell(MASK, None, forward)
    for position in step.remasked:
        cells[position] = masked
    _note(events, "committed", step.positions)
    _note(events, "edited", [position for position, _ in step.edits])
    _note(events, "remasked", step.remasked)
    for position, count in step.inserted:
        cells[position + 1 : position + 1] = [masked] * count
        _note(events, "inserted", range(position + 1, position + 1 + count))
    if step.length is not None:
        _note(events, "cut", range(step.length, len(cells)))
        _note(events, "inserted", range(len(cells), step.length))
        cells = (cells + [masked] * step.length)[: step.length]
    if step.fill is not None:
        start, token = step.fill
        number = MASK if token == mask else words.number(token)
        filled = [i for i in range(start, len(cells)) if cells[i].token != number]
        for position in filled:
            cells[position] = Cell(number, None, forward)
        _note(events, "filled", filled)
    return cells


def _note(events: dict[str, list[int]], name: str, positions: Sequence[int]) -> None:
    if positions:
        events[name] = [*events.get(name, []), *positions]


def _short(probability: float | None) -> float | None:
    return None if probability is None else round(probability, 4)


def as_json(film: Film) -> dict[str, Any]:
    """For a page: fields at their default are left out of the frames."""
    frames = [
        {k: v for k, v in vars(f).items() if v is not False and v not in ([], {}, None)}
        for f in film.frames
    ]
    return {**vars(film), "frames": frames}

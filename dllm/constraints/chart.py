"""Earley's algorithm over bytes, with frames that are shared between positions and canvases.

A frame is what all readings of the text so far expect next. Its content names the frames where the
open constituents began instead of positions, so that equal situations are one object: after every
comma of a list the same frame. Frames remember their successors; a text that has been read once, in
whatever canvas, costs one look-up per piece. Exact for every grammar: ambiguous, left-recursive,
nullable, cyclic.

Items are plain integers: they are many, and the garbage collector has no business with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dllm.clock import NEVER, Deadline
from dllm.constraints.lexer import Lexemes, Lexer
from dllm.constraints.tables import END, Tables


Item = int
"""A dotted rule and where it began: the origin's number times the count of dotted rules, plus the
rule's; one more is the same rule with the dot one symbol further."""
OWN, SENTENCE = 0, 1
"""Numbers of two origins that are no objects: the frame that holds the item, and the whole text."""


class Origin(Protocol):
    """Where a constituent began."""

    closures: dict[int, Closure] | None
    """What follows from the end of a symbol begun there."""

    def behind(self, symbol: int) -> Iterable[Item]:
        """The dotted rules that waited for a symbol begun there, with the dot behind it."""
        ...


@dataclass(frozen=True, slots=True)
class Closure:
    """What follows from items within one frame."""

    items: frozenset[Item]
    """None of them complete."""
    expected: frozenset[int]
    """Their symbols after the dot."""
    root: bool
    """Whether the whole text is complete."""


NOTHING = Closure(frozenset(), frozenset(), False)
Begun = Mapping[int, list[int]]
"""Dotted rules by the symbol after the dot."""
Restricted = tuple[tuple[frozenset[int], "Frame"], ...]


class Frame:
    """One interned situation."""

    __slots__ = (
        "_begun",
        "_behind",
        "_items",
        "_tables",
        "anything",
        "closures",
        "gaps",
        "lex",
        "next",
        "number",
        "restricted",
        "root",
    )

    def __init__(
        self,
        number: int,
        tables: Tables,
        lex: tuple[tuple[int, Lexemes], ...],
        items: frozenset[Item],
        begun: Begun,
        root: bool,
        restricted: Restricted,
    ) -> None:
        self.number = number
        """As an origin."""
        self._tables = tables
        self.lex = lex
        """Lexemes in progress by the number of where they began."""
        self._items = items
        self._begun = begun
        """What can begin here, by the symbol after the dot; nothing in a gap of any text."""
        self.root = root
        """Whether the text may end here."""
        self.restricted = restricted
        """By the terminals that the next byte may not follow: the frame where they do not end."""
        self.next: dict[int | bytes, Frame | None] = {}
        """Successors by class and by class string."""
        self.anything: Frame | None = None
        # Most frames need none of these.
        self.gaps: dict[object, Any] | None = None
        """What counted gaps after this frame may hold, by the kind of unit."""
        self.closures: dict[int, Closure] | None = None
        self._behind: dict[int, tuple[Item, ...]] | None = None

    @property
    def items(self) -> frozenset[Item]:
        """What began before, or anywhere in a gap of any text."""
        return self._items

    @property
    def own(self) -> int:
        """Number of the origin of what began in this frame and can have gone on since."""
        return self.number if self.anything is self else OWN

    def behind(self, symbol: int) -> Iterable[Item]:
        if self._behind is None:
            width, after = len(self._tables.after), self._tables.after
            base = self.number * width
            found: dict[int, list[Item]] = {}
            for item in self._items:
                advanced = item + 1 if item >= width else base + item + 1
                found.setdefault(after[item % width], []).append(advanced)
            for waited, rules in self._begun.items():
                found.setdefault(waited, []).extend(base + d + 1 for d in rules)
            self._behind = {waited: tuple(items) for waited, items in found.items()}
        return self._behind.get(symbol, ())


class Chart:
    """All frames of one grammar."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.lexer = Lexer(tables)
        self.width = len(tables.after)
        """Of the dotted rules' numbers."""
        self._predicted: dict[frozenset[int], tuple[Begun, Lexemes | None]] = {}
        self._blocked = tuple(blocked for blocked in set(self.lexer.blocks) if blocked)
        self.deadline: Deadline = NEVER
        """Looked at before every new frame."""
        self.forget()

    def __len__(self) -> int:
        return len(self._frames)

    def forget(self) -> None:
        """Drops all frames but the first: those held elsewhere must not be used any more."""
        self._frames: dict[object, Frame] = {}
        self.origins: list[Any] = [None, None]
        """By number; nothing waits for the whole text, and what a frame holds as its own is taken
        as begun in that frame."""
        start = self.closure([SENTENCE * self.width])
        self.initial = self.frame(start, [], self.tables.nullable[self.tables.root])

    def numbered(self, origin: Origin) -> int:
        """The number of a new origin."""
        self.origins.append(origin)
        return len(self.origins) - 1

    def read(self, frame: Frame, text: bytes) -> Frame | None:
        """The frame after a text, None if the text can't go on like this.

        Raises `Undecided` at the deadline.
        """
        classes = text.translate(self.lexer.classes)
        found = frame.next.get(classes, False)
        if found is False:
            found = frame
            for cls in classes:
                found = self.step(found, cls)
                if found is None:
                    break
            frame.next[classes] = found
        return found  # type: ignore[return-value]

    def step(self, frame: Frame, cls: int) -> Frame | None:
        """The frame after one byte of a class."""
        if frame.restricted:
            frame = dict(frame.restricted).get(self.lexer.blocks[cls], frame)
        found = frame.next.get(cls, False)
        if found is False:
            self.deadline.check()
            found = frame.next[cls] = self._advance(frame, cls)
        return found  # type: ignore[return-value]

    def skip(self, frame: Frame) -> Frame:
        """The frame after a gap of any text, the empty one included."""
        if frame.anything is None:
            self.deadline.check()
            lex, seeds = [], list(frame.items)
            for origin, lexemes in frame.lex:
                lex.append((origin, self.lexer.anything(lexemes)))
                if origin != OWN:
                    # Automata are trimmed: every lexeme in progress can end within the gap.
                    for t in {t for t, _ in lexemes.key}:
                        seeds += self.origins[origin].behind(t)
            whole = self.closure(seeds, anything=True)
            frame.anything = self.frame(whole, lex, frame.root, anything=True)
            frame.anything.anything = frame.anything
        return frame.anything

    def ended(self, origin: int, symbol: int) -> Closure:
        """What follows from the end of a symbol."""
        begun = self.origins[origin]
        if begun.closures is None:
            begun.closures = {}
        found = begun.closures.get(symbol)
        if found is None:
            found = begun.closures[symbol] = self.closure(begun.behind(symbol))
        return found

    def closure(self, seeds: Iterable[Item], anything: bool = False) -> Closure:
        """All that follows from items within the frame that holds them.

        With `anything`, any text may be read without leaving the frame.
        """
        width, origins = self.width, self.origins
        after, left, nullable = self.tables.after, self.tables.left, self.tables.nullable
        seen = set(seeds)
        waiting = list(seen)
        items: list[Item] = []
        expected: set[int] = set()
        completed: set[tuple[int, int]] = set()
        root = False
        while waiting:
            item = waiting.pop()
            origin, d = divmod(item, width)
            symbol = after[d]
            if symbol != END:
                items.append(item)
                if symbol not in expected:
                    expected.add(symbol)
                    if anything:
                        for rule in self.tables.first[symbol]:
                            if rule not in seen:
                                seen.add(rule)
                                waiting.append(rule)
                if (anything or nullable[symbol]) and item + 1 not in seen:
                    seen.add(item + 1)
                    waiting.append(item + 1)
            elif origin == SENTENCE:
                root = True
            elif origin != OWN and (left[d], origin) not in completed:
                # What began in this frame is empty or within the gap: advanced over right away.
                completed.add((left[d], origin))
                begun = origins[origin]
                known = None if anything else (begun.closures or {}).get(left[d])
                if known is not None:
                    fresh = known.items - seen
                    seen |= fresh
                    items += fresh
                    expected |= known.expected
                    root |= known.root
                    continue
                for further in begun.behind(left[d]):
                    if further not in seen:
                        seen.add(further)
                        waiting.append(further)
        return Closure(frozenset(items), frozenset(expected), root)

    def frame(
        self,
        held: Closure,
        lex: list[tuple[int, Lexemes]],
        root: bool,
        anything: bool = False,
        restricted: Restricted = (),
    ) -> Frame:
        """The frame of what has been closed and of the given lexemes, with what can begin there."""
        begun, lexemes = self._begun(held.expected)
        if lexemes is not None:
            if anything:
                lexemes = self.lexer.anything(lexemes)
            lex = [*lex, (OWN, lexemes)]
        key = held.items, frozenset(lex), root or held.root, restricted
        found = self._frames.get(key)
        if found is None:
            found = self._frames[key] = Frame(
                len(self.origins),
                self.tables,
                tuple(set(lex)),
                held.items,
                {} if anything else begun,
                root or held.root,
                restricted,
            )
            self.origins.append(found)
        return found

    def _begun(self, expected: frozenset[int]) -> tuple[Begun, Lexemes | None]:
        """What can begin where these symbols are expected."""
        found = self._predicted.get(expected)
        if found is None:
            predicted = [self.tables.predicted[symbol] for symbol in expected]
            begun: dict[int, list[int]] = {}
            for d in frozenset().union(*(rules for rules, _ in predicted)):
                begun.setdefault(self.tables.after[d], []).append(d)
            terminals = frozenset().union(*(lexemes for _, lexemes in predicted))
            found = self._predicted[expected] = begun, self.lexer.start(terminals)
        return found

    def _advance(self, frame: Frame, cls: int) -> Frame | None:
        lex: list[tuple[int, Lexemes]] = []
        ends: list[Closure] = []
        bare: dict[int, list[Closure]] = {}
        for origin, lexemes in frame.lex:
            stepped = self.lexer.step(lexemes, cls)
            if stepped is None:
                continue
            origin = origin or frame.number
            lex.append((origin, stepped))
            for t in stepped.accepts:
                ended = bare.setdefault(t, []) if t in stepped.bare else ends
                ended.append(self.ended(origin, t))
        if not lex:
            return None
        restricted = []
        for blocked in self._blocked:
            if not blocked.isdisjoint(bare):
                others = [one for t, closed in bare.items() if t not in blocked for one in closed]
                restricted.append((blocked, self.frame(_union([*ends, *others]), lex, False)))
        ends += [one for closed in bare.values() for one in closed]
        return self.frame(_union(ends), lex, False, restricted=tuple(restricted))


def _union(closures: list[Closure]) -> Closure:
    if len(closures) < 2:
        return closures[0] if closures else NOTHING
    return Closure(
        frozenset().union(*(one.items for one in closures)),
        frozenset().union(*(one.expected for one in closures)),
        any(one.root for one in closures),
    )

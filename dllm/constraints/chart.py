"""Earley's algorithm over bytes, with frames that are shared between positions and canvases.

A frame is what all readings of the text so far expect next. Its content names the frames where the
open constituents began instead of positions, so that equal situations are one object: after every
comma of a list the same frame. Frames remember their successors; a text that has been read once, in
whatever canvas, costs one look-up per piece. Exact for every grammar: ambiguous, left-recursive,
nullable, cyclic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from dllm.constraints.clock import NEVER, Deadline
from dllm.constraints.lexer import Lexemes, Lexer
from dllm.constraints.tables import END, Tables


class Origin(Protocol):
    """Where a constituent began."""

    def waiting(self, symbol: int) -> Iterable[Item]:
        """The dotted rules that wait for a symbol begun there."""
        ...


Item = tuple[int, "Origin | None"]
"""A dotted rule and where it began; None = in the frame that holds it."""


class Sentence:
    """Origin of the whole text: nothing waits for it."""

    def waiting(self, symbol: int) -> Iterable[Item]:
        raise AssertionError("the root is no part of a rule")


SENTENCE = Sentence()
Restricted = tuple[tuple[frozenset[int], "Frame"], ...]


class Frame:
    """One interned situation."""

    __slots__ = ("anything", "gaps", "lex", "next", "restricted", "root", "texts", "wait")

    def __init__(
        self,
        lex: tuple[tuple[Origin | None, Lexemes], ...],
        wait: dict[int, tuple[Item, ...]],
        root: bool,
        restricted: Restricted,
        classes: int,
    ) -> None:
        self.lex = lex
        """Lexemes in progress by where they began."""
        self.wait = wait
        """By the symbol after the dot."""
        self.root = root
        """Whether the text may end here."""
        self.restricted = restricted
        """By the terminals that the next byte may not follow: the frame where they do not end."""
        self.next: list[Frame | bool | None] = [False] * classes
        self.texts: dict[bytes, Frame | None] = {}
        """Successors by class string."""
        self.anything: Frame | None = None
        self.gaps: dict[object, Any] = {}
        """What counted gaps after this frame may hold, by the kind of unit."""

    def waiting(self, symbol: int) -> Iterable[Item]:
        return [(d, origin or self) for d, origin in self.wait.get(symbol, ())]


class Chart:
    """All frames of one grammar."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.lexer = Lexer(tables)
        self._frames: dict[object, Frame] = {}
        self.deadline: Deadline = NEVER
        """Looked at before every new frame."""
        self.initial = self.close([(0, SENTENCE)], [], tables.nullable[tables.root])

    def __len__(self) -> int:
        return len(self._frames)

    def forget(self) -> None:
        """Drops all frames but the first: those held elsewhere must not be used any more."""
        self._frames.clear()
        self.initial = self.close([(0, SENTENCE)], [], self.tables.nullable[self.tables.root])

    def read(self, frame: Frame, text: bytes) -> Frame | None:
        """The frame after a text, None if the text can't go on like this.

        Raises `Undecided` at the deadline.
        """
        classes = text.translate(self.lexer.classes)
        found = frame.texts.get(classes, False)
        if found is False:
            found = frame
            for cls in classes:
                found = self.step(found, cls)
                if found is None:
                    break
            frame.texts[classes] = found
        return found  # type: ignore[return-value]

    def step(self, frame: Frame, cls: int) -> Frame | None:
        """The frame after one byte of a class."""
        if frame.restricted:
            frame = dict(frame.restricted).get(self.lexer.blocks[cls], frame)
        found = frame.next[cls]
        if found is False:
            self.deadline.check()
            found = frame.next[cls] = self._advance(frame, cls)
        return found  # type: ignore[return-value]

    def skip(self, frame: Frame) -> Frame:
        """The frame after a gap of any text, the empty one included."""
        if frame.anything is None:
            self.deadline.check()
            lex, seeds = [], []
            for origin, lexemes in frame.lex:
                lex.append((origin, self.lexer.anything(lexemes)))
                if origin is not None:
                    # Automata are trimmed: every lexeme in progress can end within the gap.
                    for t in {t for t, _ in lexemes.key}:
                        seeds += [(d + 1, o) for d, o in origin.waiting(t)]
            for items in frame.wait.values():
                seeds += items
            frame.anything = self.close(seeds, lex, frame.root, anything=True)
            frame.anything.anything = frame.anything
        return frame.anything

    def close(
        self,
        seeds: Iterable[Item],
        lex: list[tuple[Origin | None, Lexemes]],
        root: bool,
        anything: bool = False,
        restricted: Restricted = (),
    ) -> Frame:
        """The frame of the given items and lexemes with all that follows from them.

        With `anything`, any text may be read without leaving the frame.
        """
        after, left, nullable = self.tables.after, self.tables.left, self.tables.nullable
        predicted = self.tables.predicted
        items = set(seeds)
        waiting = list(items)
        expected: set[int] = set()
        completed: set[tuple[int, Origin]] = set()
        while waiting:
            d, origin = item = waiting.pop()
            symbol = after[d]
            found: list[Item] = []
            if symbol != END:
                if symbol not in expected:
                    expected.add(symbol)
                    if anything:
                        found += [(rule, None) for rule in self.tables.first[symbol]]
                    else:
                        items.update((rule, None) for rule in predicted[symbol][0])
                if anything or nullable[symbol]:
                    found.append((d + 1, origin))
            elif origin is SENTENCE:
                root = True
            elif origin is not None and (left[d], origin) not in completed:
                # What began in this frame is empty or within the gap: advanced over right away.
                completed.add((left[d], origin))
                found += [(other + 1, o) for other, o in origin.waiting(left[d])]
            for item in found:
                if item not in items:
                    items.add(item)
                    waiting.append(item)
        terminals = frozenset().union(*(predicted[symbol][1] for symbol in expected))
        begun = self.lexer.start(terminals)
        if begun is not None:
            if anything:
                begun = self.lexer.anything(begun)
            lex = [*lex, (None, begun)]
        return self._intern(items, lex, root, restricted)

    def _advance(self, frame: Frame, cls: int) -> Frame | None:
        lex: list[tuple[Origin | None, Lexemes]] = []
        seeds: list[Item] = []
        bare: dict[int, list[Item]] = {}
        for origin, lexemes in frame.lex:
            stepped = self.lexer.step(lexemes, cls)
            if stepped is None:
                continue
            origin = origin or frame
            lex.append((origin, stepped))
            for t in stepped.accepts:
                ended = bare.setdefault(t, []) if t in stepped.bare else seeds
                ended += [(d + 1, o) for d, o in origin.waiting(t)]
        if not lex:
            return None
        restricted = []
        for blocked in set(self.lexer.blocks):
            if not blocked.isdisjoint(bare):
                others = [item for t, items in bare.items() if t not in blocked for item in items]
                restricted.append((blocked, self.close([*seeds, *others], lex, False)))
        seeds += [item for items in bare.values() for item in items]
        return self.close(seeds, lex, False, restricted=tuple(restricted))

    def _intern(
        self,
        items: set[Item],
        lex: list[tuple[Origin | None, Lexemes]],
        root: bool,
        restricted: Restricted,
    ) -> Frame:
        key = frozenset(items), frozenset(lex), root, restricted
        frame = self._frames.get(key)
        if frame is None:
            wait: dict[int, list[Item]] = {}
            for d, origin in items:
                symbol = self.tables.after[d]
                if symbol != END:
                    wait.setdefault(symbol, []).append((d, origin))
            grouped = {symbol: tuple(found) for symbol, found in wait.items()}
            frame = Frame(tuple(set(lex)), grouped, root, restricted, self.lexer.count)
            self._frames[key] = frame
        return frame

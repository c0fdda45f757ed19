"""Earley's algorithm over bytes, with frames that are shared between positions and canvases.

A frame is what all readings of the text so far expect next. Its content names the frames where the
open constituents began instead of positions, so that equal situations are one object: after every
comma of a list the same frame. Frames remember their successors; a text that has been read once, in
whatever canvas, costs one look-up per piece. Exact for every grammar: ambiguous, left-recursive,
nullable, cyclic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
Begun = Mapping[int, list[int]]
"""Dotted rules by the symbol after the dot."""
Restricted = tuple[tuple[frozenset[int], "Frame"], ...]


class Frame:
    """One interned situation."""

    __slots__ = (
        "_waiting",
        "anything",
        "begun",
        "gaps",
        "lex",
        "next",
        "restricted",
        "root",
        "texts",
        "wait",
    )

    def __init__(
        self,
        lex: tuple[tuple[Origin | None, Lexemes], ...],
        wait: dict[int, list[Item]],
        begun: Begun,
        root: bool,
        restricted: Restricted,
        classes: int,
    ) -> None:
        self.lex = lex
        """Lexemes in progress by where they began."""
        self.wait = wait
        """What began before, or anywhere in a gap of any text, by the symbol after the dot."""
        self.begun = begun
        """What can begin here, by the symbol after the dot; nothing in a gap of any text."""
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

        self._waiting: dict[int, list[Item]] = {}

    def waiting(self, symbol: int) -> Iterable[Item]:
        found = self._waiting.get(symbol)
        if found is None:
            # Items that say where they began are shared, not made anew.
            found = [item if item[1] else (item[0], self) for item in self.wait.get(symbol, ())]
            found += [(d, self) for d in self.begun.get(symbol, ())]
            self._waiting[symbol] = found
        return found


class Chart:
    """All frames of one grammar."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.lexer = Lexer(tables)
        self._frames: dict[object, Frame] = {}
        self._predicted: dict[frozenset[int], tuple[Begun, Lexemes | None]] = {}
        self._blocked = tuple(blocked for blocked in set(self.lexer.blocks) if blocked)
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
        seen = set(seeds)
        waiting = list(seen)
        items: list[Item] = []
        expected: set[int] = set()
        completed: set[tuple[int, Origin]] = set()
        while waiting:
            d, origin = item = waiting.pop()
            symbol = after[d]
            found: list[Item] = []
            if symbol != END:
                items.append(item)
                if symbol not in expected:
                    expected.add(symbol)
                    if anything:
                        found += [(rule, None) for rule in self.tables.first[symbol]]
                if anything or nullable[symbol]:
                    found.append((d + 1, origin))
            elif origin is SENTENCE:
                root = True
            elif origin is not None and (left[d], origin) not in completed:
                # What began in this frame is empty or within the gap: advanced over right away.
                completed.add((left[d], origin))
                found += [(other + 1, o) for other, o in origin.waiting(left[d])]
            for item in found:
                if item not in seen:
                    seen.add(item)
                    waiting.append(item)
        begun, lexemes = self._begun(frozenset(expected))
        if lexemes is not None:
            if anything:
                lexemes = self.lexer.anything(lexemes)
            lex = [*lex, (None, lexemes)]
        return self._intern(items, {} if anything else begun, lex, root, restricted)

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
        if not seeds and not bare:
            return self._intern([], {}, lex, False, ())
        restricted = []
        for blocked in self._blocked:
            if not blocked.isdisjoint(bare):
                others = [item for t, items in bare.items() if t not in blocked for item in items]
                restricted.append((blocked, self.close([*seeds, *others], lex, False)))
        seeds += [item for items in bare.values() for item in items]
        return self.close(seeds, lex, False, restricted=tuple(restricted))

    def _intern(
        self,
        items: list[Item],
        begun: Begun,
        lex: list[tuple[Origin | None, Lexemes]],
        root: bool,
        restricted: Restricted,
    ) -> Frame:
        key = frozenset(items), frozenset(lex), root, restricted
        frame = self._frames.get(key)
        if frame is None:
            wait: dict[int, list[Item]] = {}
            for item in items:
                wait.setdefault(self.tables.after[item[0]], []).append(item)
            frame = Frame(tuple(set(lex)), wait, begun, root, restricted, self.lexer.count)
            self._frames[key] = frame
        return frame

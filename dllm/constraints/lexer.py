"""Lexemes in progress: sets of (terminal, automaton state), stepped byte by byte.

Sets are interned and remember their successors, so that a step is a look-up after the first time.
"""

from collections.abc import Iterable

from dllm.constraints.automaton import DEAD
from dllm.constraints.tables import Tables


Position = tuple[int, int]
"""A terminal and a state of its automaton."""


class Lexemes:
    """One interned set; `None` takes the place of the empty one."""

    __slots__ = ("accepts", "bare", "key", "next", "reachable")

    def __init__(self, key: frozenset[Position], classes: int, tables: Tables) -> None:
        self.key = key
        self.next: list[Lexemes | bool | None] = [False] * classes
        """By byte class; False = not computed yet."""
        accepting = [(t, s) for t, s in key if tables.terminals[t].dfa.accepting[s]]
        self.accepts = frozenset(t for t, _ in accepting)
        """Terminals that may end here."""
        settled = {t for t, s in accepting if s not in tables.terminals[t].bare}
        self.bare = self.accepts - settled
        """Those that must not be followed by everything."""
        self.reachable: Lexemes | None = None
        """The set after any text."""


class Lexer:
    """All terminals of a grammar, stepped together."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        columns: dict[tuple[frozenset[int], tuple[int, ...]], int] = {}
        word = [
            frozenset(t for t, terminal in enumerate(tables.terminals) if b in terminal.not_before)
            for b in range(256)
        ]
        self.classes = bytes(
            columns.setdefault(
                (word[b], tuple(terminal.dfa.classes[b] for terminal in tables.terminals)),
                len(columns),
            )
            for b in range(256)
        )
        """Class of each byte: bytes of a class are the same to every terminal."""
        self.count = len(columns)
        self._sample = [self.classes.index(cls) for cls in range(self.count)]
        self.blocks = [word[byte] for byte in self._sample]
        """Per class: terminals that may not be followed by it."""
        self._known: dict[frozenset[Position], Lexemes] = {}
        self._reached: dict[Position, frozenset[Position]] = {}

    def intern(self, key: frozenset[Position]) -> Lexemes | None:
        if not key:
            return None
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Lexemes(key, self.count, self._tables)
        return found

    def start(self, terminals: Iterable[int]) -> Lexemes | None:
        return self.intern(frozenset((t, 0) for t in terminals))

    def step(self, lexemes: Lexemes, cls: int) -> Lexemes | None:
        """After one byte of a class."""
        found = lexemes.next[cls]
        if found is False:
            byte, key = self._sample[cls], set()
            for t, s in lexemes.key:
                dfa = self._tables.terminals[t].dfa
                target = dfa.rows[s][dfa.classes[byte]]
                if target != DEAD:
                    key.add((t, target))
            found = lexemes.next[cls] = self.intern(frozenset(key))
        return found  # type: ignore[return-value]

    def anything(self, lexemes: Lexemes) -> Lexemes:
        """After any text, the empty one included."""
        if lexemes.reachable is None:
            key = frozenset().union(*(self._reach(position) for position in lexemes.key))
            lexemes.reachable = self.intern(key)
            assert lexemes.reachable is not None
        return lexemes.reachable

    def _reach(self, position: Position) -> frozenset[Position]:
        if position not in self._reached:
            t, s = position
            rows = self._tables.terminals[t].dfa.rows
            seen, waiting = {s}, [s]
            while waiting:
                for target in rows[waiting.pop()]:
                    if target != DEAD and target not in seen:
                        seen.add(target)
                        waiting.append(target)
            self._reached[position] = frozenset((t, target) for target in seen)
        return self._reached[position]

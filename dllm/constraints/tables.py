"""A grammar as numbers: dotted rules, what they wait for, what they may begin with."""

from dataclasses import dataclass

from dllm.constraints.grammar import Grammar, Terminal


END = -1
"""The symbol after a complete rule."""


@dataclass(frozen=True)
class Tables:
    """Symbols are numbered, terminals first; a dotted rule is a number and d + 1 is the same rule
    with the dot one symbol further."""

    terminals: tuple[Terminal, ...]
    after: tuple[int, ...]
    """Symbol after the dot of each dotted rule, or `END`."""
    left: tuple[int, ...]
    """Left side of each dotted rule."""
    first: tuple[tuple[int, ...], ...]
    """Per symbol: its rules with the dot at the front."""
    users: tuple[tuple[int, ...], ...]
    """Per symbol: dotted rules that it follows the dot of."""
    nullable: tuple[bool, ...]
    """Per symbol: whether it derives the empty text."""
    predicted: tuple[tuple[frozenset[int], frozenset[int]], ...]
    """Per symbol: the dotted rules and the terminals at a position where it is expected."""

    @property
    def root(self) -> int:
        """The symbol of a whole sentence; its only rule has the dotted numbers 0 and 1."""
        return self.left[0]

    @property
    def symbols(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, grammar: Grammar) -> "Tables":
        names = {name: i for i, name in enumerate(grammar.terminals)}
        root = len(names)
        for left, _ in grammar.rules:
            names.setdefault(left, len(names) + 1)
        symbols = len(names) + 1
        after: list[int] = [names[grammar.start], END]
        left_of = [root, root]
        first: list[list[int]] = [[] for _ in range(symbols)]
        first[root].append(0)
        for left, body in grammar.rules:
            first[names[left]].append(len(after))
            after += [*(names[symbol] for symbol in body), END]
            left_of += [names[left]] * (len(body) + 1)
        users: list[list[int]] = [[] for _ in range(symbols)]
        for dotted, symbol in enumerate(after):
            if symbol != END:
                users[symbol].append(dotted)
        terminals = tuple(grammar.terminals.values())
        nullable = _nullable(terminals, after, left_of, first)
        predicted = [_predicted(s, len(terminals), after, first, nullable) for s in range(symbols)]
        return cls(
            terminals,
            tuple(after),
            tuple(left_of),
            tuple(tuple(rules) for rules in first),
            tuple(tuple(dotted) for dotted in users),
            tuple(nullable),
            tuple(predicted),
        )


def _nullable(
    terminals: tuple[Terminal, ...], after: list[int], left: list[int], first: list[list[int]]
) -> list[bool]:
    found = [terminal.dfa.nullable for terminal in terminals]
    found += [False] * (len(first) - len(found))
    changed = True
    while changed:
        changed = False
        for symbol, rules in enumerate(first):
            if found[symbol]:
                continue
            for dotted in rules:
                while after[dotted] != END and found[after[dotted]]:
                    dotted += 1
                if after[dotted] == END:
                    found[symbol] = changed = True
                    break
    return found


def _predicted(
    symbol: int, terminals: int, after: list[int], first: list[list[int]], nullable: list[bool]
) -> tuple[frozenset[int], frozenset[int]]:
    dotted, lexemes = set(), set()
    seen, waiting = {symbol}, [symbol]
    while waiting:
        here = waiting.pop()
        if here < terminals:
            lexemes.add(here)
            continue
        for d in first[here]:
            while after[d] != END:
                dotted.add(d)
                if after[d] not in seen:
                    seen.add(after[d])
                    waiting.append(after[d])
                if not nullable[after[d]]:
                    break
                d += 1
    return frozenset(dotted), frozenset(lexemes)

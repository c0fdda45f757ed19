"""An answer of another kind: which texts between two positions each symbol derives, bottom up."""

from collections.abc import Sequence

from dllm.constraints.automaton import DEAD
from dllm.constraints.checker import Piece
from dllm.constraints.grammar import Grammar


def completable(grammar: Grammar, pieces: Sequence[Piece], ended: bool, alphabet: bytes) -> bool:
    """Fixpoint over pairs of positions of the automaton that all fillings form."""
    edges: list[set[int]] = []
    loops: set[int] = set()
    for piece in pieces:
        if isinstance(piece, bytes):
            edges += [{byte} for byte in piece]
        elif piece.count is None:
            loops.add(len(edges))
        else:
            edges += [set(alphabet)] * piece.count
    last = len(edges)
    if not ended:
        loops.add(last)

    def moves(position: int):
        for byte in alphabet:
            if position in loops:
                yield byte, position
            if position < last and byte in edges[position]:
                yield byte, position + 1

    spans: dict[str, set[tuple[int, int]]] = {left: set() for left, _ in grammar.rules}
    for name, terminal in grammar.terminals.items():
        spans[name] = set()
        for begin in range(last + 1):
            seen, waiting = {(begin, 0)}, [(begin, 0)]
            while waiting:
                position, state = waiting.pop()
                if terminal.dfa.accepting[state]:
                    spans[name].add((begin, position))
                for byte, to in moves(position):
                    target = terminal.dfa.rows[state][terminal.dfa.classes[byte]]
                    if target != DEAD and (to, target) not in seen:
                        seen.add((to, target))
                        waiting.append((to, target))
    changed = True
    while changed:
        changed = False
        for left, body in grammar.rules:
            whole = {(i, i) for i in range(last + 1)}
            for symbol in body:
                whole = {(i, k) for i, j in whole for j_, k in spans[symbol] if j_ == j}
            if not whole <= spans[left]:
                spans[left] |= whole
                changed = True
    return (0, last) in spans[grammar.start]

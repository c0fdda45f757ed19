"""Random sentences of a grammar."""

import random

from dllm.constraints.automaton import DEAD, Dfa
from dllm.constraints.grammar import Grammar


def sentence(grammar: Grammar, rng: random.Random, size: int = 30) -> bytes:
    """A sentence derived at random; once `size` rules have been used, by the shallowest rules."""
    depth = {name: 0 for name in grammar.terminals}
    bodies: dict[str, list[tuple[str, ...]]] = {}
    for left, body in grammar.rules:
        bodies.setdefault(left, []).append(body)
    changed = True
    while changed:
        changed = False
        for left, body in grammar.rules:
            if all(symbol in depth for symbol in body):
                new = 1 + max((depth[symbol] for symbol in body), default=0)
                if new < depth.get(left, new + 1):
                    depth[left] = new
                    changed = True
    text, waiting, used = b"", [grammar.start], 0
    while waiting:
        symbol = waiting.pop()
        if symbol in grammar.terminals:
            text += _text(grammar.terminals[symbol].dfa, rng)
            continue
        used += 1
        options = bodies[symbol]
        if used > size:
            options = [min(options, key=lambda b: max((depth[s] for s in b), default=0))]
        waiting += reversed(rng.choice(options))
    return text


def _text(dfa: Dfa, rng: random.Random) -> bytes:
    """A walk to acceptance, by a shortest way once it is long."""
    rest = _distances(dfa)
    state, text = 0, []
    while not (dfa.accepting[state] and (len(text) > 12 or rng.random() < 0.4)):
        moves = [b for b in range(256) if dfa.rows[state][dfa.classes[b]] != DEAD]
        if not moves:
            break
        if len(text) > 12:
            nearest = min(rest[dfa.rows[state][dfa.classes[b]]] for b in moves)
            moves = [b for b in moves if rest[dfa.rows[state][dfa.classes[b]]] == nearest]
        byte = rng.choice(moves)
        text.append(byte)
        state = dfa.rows[state][dfa.classes[byte]]
    return bytes(text)


def _distances(dfa: Dfa) -> list[int]:
    rest = [0 if accepts else 10**6 for accepts in dfa.accepting]
    changed = True
    while changed:
        changed = False
        for state, row in enumerate(dfa.rows):
            new = min([rest[state], *(rest[target] + 1 for target in row if target != DEAD)])
            if new < rest[state]:
                rest[state], changed = new, True
    return rest

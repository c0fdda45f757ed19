"""A shortest text that completes a canvas with gaps, for answers that were given up.

Knuth's generalisation of Dijkstra's algorithm over (dotted rule, begin, end): what takes the fewest
added bytes comes first, and only what can begin somewhere is looked for there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from dllm.clock import Deadline
from dllm.constraints.automaton import DEAD, Dfa
from dllm.constraints.checker import Piece
from dllm.constraints.tables import END, Tables


Span = tuple[int, int, int]
"""A dotted rule, or ~symbol for a whole one, and the places where it begins and ends."""
Place = tuple[int, int]
"""In the text, and in a terminal's automaton."""
Found = tuple[Span, ...] | bytes
"""What a span was made of, or a lexeme's text."""


def shortest_completion(
    tables: Tables, pieces: Sequence[Piece], deadline: Deadline
) -> bytes | None:
    """The pieces with as few bytes as possible in place of the holes; None if nothing fits.

    Raises `Undecided` at the deadline.
    """
    text = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    gaps, at = set[int](), 0
    for piece in pieces:
        if isinstance(piece, bytes):
            at += len(piece)
        else:
            gaps.add(at)
    made: dict[Span, Found] = {}
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    waiting: dict[tuple[int, int], list[tuple[int, Span]]] = {}
    agenda: list[tuple[int, Span, Found]] = [(0, (0, 0, 0), ())]
    while agenda:
        deadline.check()
        cost, span, found = heappop(agenda)
        if span in made:
            continue
        made[span] = found
        d, begin, end = span
        if d < 0:
            ends[~d, begin].append((cost, end))
            for before, outer in waiting[~d, begin]:
                further = (outer[0] + 1, outer[1], end)
                heappush(agenda, (before + cost, further, (outer, span)))
            continue
        symbol = tables.after[d]
        if symbol == END:
            if tables.left[d] == tables.root:
                if end == len(text):
                    return _spelled(span, made)
                continue
            heappush(agenda, (cost, (~tables.left[d], begin, end), found))
            continue
        waiting.setdefault((symbol, end), []).append((cost, span))
        if (symbol, end) not in ends:
            ends[symbol, end] = []
            if symbol < len(tables.terminals):
                terminal = tables.terminals[symbol]
                for added, to, lexeme in _lexemes(terminal.dfa, text, gaps, end):
                    heappush(agenda, (added, (~symbol, end, to), lexeme))
            for first in tables.first[symbol]:
                heappush(agenda, (0, (first, end, end), ()))
        for added, to in ends[symbol, end]:
            heappush(agenda, (cost + added, (d + 1, begin, to), (span, (~symbol, end, to))))
    return None


def _spelled(span: Span, made: dict[Span, Found]) -> bytes:
    parts, waiting = [], [span]
    while waiting:
        found = made[waiting.pop()]
        if isinstance(found, bytes):
            parts.append(found)
        else:
            waiting += reversed(found)
    return b"".join(parts)


def _lexemes(dfa: Dfa, text: bytes, gaps: set[int], begin: int) -> Iterator[tuple[int, int, bytes]]:
    """Shortest lexemes from one place on: bytes added, where it ends, its text."""
    seen: dict[Place, tuple[Place | None, int]] = {}
    waiting: deque[tuple[int, Place, Place | None, int]] = deque([(0, (begin, 0), None, 0)])
    liked = [_liked(dfa, cls) for cls in range(len(dfa.rows[0]))]
    while waiting:
        added, here, before, byte = waiting.popleft()
        if here in seen:
            continue
        seen[here] = before, byte
        at, state = here
        if dfa.accepting[state]:
            lexeme = bytearray()
            before, byte = seen[here]
            while before is not None:
                lexeme.append(byte)
                before, byte = seen[before]
            yield added, at, bytes(reversed(lexeme))
        if at < len(text) and (target := dfa.rows[state][dfa.classes[text[at]]]) != DEAD:
            waiting.appendleft((added, (at + 1, target), here, text[at]))
        if at in gaps:
            for cls, target in enumerate(dfa.rows[state]):
                if target != DEAD:
                    waiting.append((added + 1, (at, target), here, liked[cls]))


def _liked(dfa: Dfa, cls: int) -> int:
    """A byte of the class, printable if there is one."""
    members = [byte for byte in range(256) if dfa.classes[byte] == cls]
    return min(members, key=lambda byte: (not 0x20 <= byte < 0x7F, not chr(byte).isalnum(), byte))

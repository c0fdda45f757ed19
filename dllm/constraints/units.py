"""What a counted gap counts: bytes, characters or tokens, each within one lexeme."""

from __future__ import annotations

from functools import cache

from dllm.constraints.automaton import DEAD
from dllm.constraints.lengths import Successors
from dllm.constraints.regex import LAST, utf8
from dllm.constraints.tables import Tables


def characters(tables: Tables) -> Successors:
    """A unit is one character, however many bytes spell it."""
    spellings = utf8(0, LAST)

    @cache
    def successors(terminal: int, state: int) -> frozenset[int]:
        dfa = tables.terminals[terminal].dfa
        found: set[int] = set()
        for ranges in spellings:
            here = {state}
            for low, high in ranges:
                classes = set(dfa.classes[low : high + 1])
                here = {dfa.rows[s][cls] for s in here for cls in classes} - {DEAD}
            found |= here
        return frozenset(found)

    return successors

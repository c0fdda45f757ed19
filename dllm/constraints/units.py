"""What a counted gap counts: bytes, characters or tokens, each within one lexeme."""

from __future__ import annotations

from functools import cache

import numpy as np

from dllm.constraints.automaton import DEAD, Dfa
from dllm.constraints.lengths import Successors
from dllm.constraints.regex import LAST, utf8
from dllm.constraints.tables import Tables
from dllm.constraints.vocabulary import Vocabulary


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


def tokens(tables: Tables, vocabulary: Vocabulary) -> Successors:
    """A unit is one token whose text lies within the lexeme."""
    strings: dict[Dfa, np.ndarray] = {}
    rows: dict[Dfa, np.ndarray] = {}

    @cache
    def successors(terminal: int, state: int) -> frozenset[int]:
        dfa = tables.terminals[terminal].dfa
        if dfa not in strings:
            strings[dfa], rows[dfa] = _class_strings(dfa, vocabulary), _total(dfa)
        here = np.full(strings[dfa].shape[1], state)
        for classes in strings[dfa]:
            here = rows[dfa][here, classes]
        return frozenset(np.unique(here[here < len(dfa.rows)]).tolist())

    return successors


def _total(dfa: Dfa) -> np.ndarray:
    """The transitions with a state after the last for "dead" and a class after the last for "no
    more bytes"."""
    count, width = len(dfa.rows), len(dfa.rows[0])
    rows = np.full((count + 1, width + 1), count)
    rows[:count, :width] = dfa.rows
    rows[rows == DEAD] = count
    rows[:, width] = np.arange(count + 1)
    return rows


def _class_strings(dfa: Dfa, vocabulary: Vocabulary) -> np.ndarray:
    """Different token texts as classes of the automaton [position, text], filled up at the end;
    without those that hold a byte the automaton never reads."""
    width = len(dfa.rows[0])
    live = np.zeros(width, dtype=bool)
    for row in dfa.rows:
        live |= np.array(row) != DEAD
    fine = live[np.frombuffer(dfa.classes, dtype=np.uint8)[vocabulary.bytes]]
    usable = np.logical_and.reduceat(fine, vocabulary.starts)
    found = {vocabulary.distinct[i].translate(dfa.classes) for i in usable.nonzero()[0]}
    longest = max(map(len, found), default=0)
    strings = np.full((longest, len(found)), width)
    for column, text in enumerate(found):
        strings[: len(text), column] = list(text)
    return strings

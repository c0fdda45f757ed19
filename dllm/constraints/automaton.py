"""Finite automata over bytes: what a terminal of a grammar is.

An `Nfa` is built piece by piece; `determinise` makes of it a trimmed `Dfa`, in which every state
leads to acceptance. Bytes that no transition tells apart share a class, so that tables are narrow.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from dllm.clock import NEVER, Deadline
from dllm.constraints.errors import EmptyLanguage, GrammarError


ByteRange = tuple[int, int]
"""Lowest and highest byte, both included."""
DEAD = -1
MAX_STATES = 50_000
"""Of one automaton; what needs more is refused rather than left to fill the memory."""


class Nfa:
    """Automaton under construction, with empty moves."""

    def __init__(self) -> None:
        self.moves: list[list[tuple[int, int, int]]] = []
        """Per state: (lowest byte, highest byte, target)."""
        self.empty: list[list[int]] = []

    def state(self) -> int:
        """A new state.

        Raises `GrammarError` if there are too many.
        """
        if len(self.moves) >= MAX_STATES:
            raise GrammarError(f"a terminal needs more than {MAX_STATES} automaton states")
        self.moves.append([])
        self.empty.append([])
        return len(self.moves) - 1

    def chain(self, source: int, target: int, ranges: Sequence[ByteRange]) -> None:
        """A path of consecutive byte ranges."""
        for low, high in ranges[:-1]:
            middle = self.state()
            self.moves[source].append((low, high, middle))
            source = middle
        if ranges:
            self.moves[source].append((*ranges[-1], target))
        else:
            self.empty[source].append(target)

    def choice(self, source: int, target: int, paths: Iterable[Sequence[ByteRange]]) -> None:
        """One of the paths, none empty; equal ends of them are there once."""
        ends: dict[tuple[ByteRange, ...], int] = {(): target}

        def end(rest: tuple[ByteRange, ...]) -> int:
            if rest not in ends:
                following = end(rest[1:])
                ends[rest] = self.state()
                self.moves[ends[rest]].append((*rest[0], following))
            return ends[rest]

        for first, *rest in paths:
            self.moves[source].append((*first, end(tuple(rest))))

    def embed(self, dfa: "Dfa", source: int) -> list[int]:
        """The states in which `dfa`, begun at `source`, has accepted."""
        states = [self.state() for _ in dfa.rows]
        self.empty[source].append(states[0])
        for state, row in zip(states, dfa.rows, strict=True):
            for byte, cls in enumerate(dfa.classes):
                if row[cls] != DEAD:
                    self.moves[state].append((byte, byte, states[row[cls]]))
        return [states[s] for s, accepts in enumerate(dfa.accepting) if accepts]


@dataclass(frozen=True)
class Dfa:
    """Deterministic automaton; state 0 is the start and every state can reach acceptance."""

    classes: bytes
    """Class of each of the 256 bytes."""
    rows: tuple[tuple[int, ...], ...]
    """Next state by class, `DEAD` where there is none."""
    accepting: tuple[bool, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Of a large automaton it takes as long as the steps that it is asked for.
        return hash((self.classes, self.rows, self.accepting))

    @property
    def nullable(self) -> bool:
        return self.accepting[0]

    def matches(self, text: bytes) -> bool:
        state = 0
        for byte in text:
            state = self.rows[state][self.classes[byte]]
            if state == DEAD:
                return False
        return self.accepting[state]


def literal(text: bytes) -> Dfa:
    """The automaton of one text."""
    nfa = Nfa()
    start, end = nfa.state(), nfa.state()
    nfa.chain(start, end, [(byte, byte) for byte in text])
    return determinise(nfa, start, {end})


def determinise(
    nfa: Nfa,
    start: int,
    accepting: Iterable[int],
    deadline: Deadline = NEVER,
    everything: int | None = None,
) -> Dfa:
    """The trimmed deterministic automaton.

    From the state `everything` on, all is accepted that can follow any state reached with it: what
    else has been found by then makes no difference.

    Raises `GrammarError` if it has too many states or accepts nothing, `Undecided` at the deadline.
    """
    classes, lows = _classes(nfa)
    final = set(accepting)
    closures: dict[int, frozenset[int]] = {}

    def closure(states: Iterable[int]) -> frozenset[int]:
        reached: set[int] = set()
        for state in states:
            if state not in closures:
                closures[state] = _closure(nfa, state)
            reached |= closures[state]
        if everything in reached:
            return closures.setdefault(everything, _closure(nfa, everything))
        return frozenset(reached)

    initial = closure([start])
    index = {initial: 0}
    subsets = [initial]
    rows: list[list[int]] = []
    for subset in subsets:  # grows while it is walked
        deadline.check()
        moves: list[set[int]] = [set() for _ in lows]
        for state in subset:
            for low, high, target in nfa.moves[state]:
                for cls in range(classes[low], classes[high] + 1):
                    moves[cls].add(target)
        row = []
        for targets in moves:
            if not targets:
                row.append(DEAD)
                continue
            reached = closure(targets)
            if reached not in index:
                if len(subsets) >= MAX_STATES:
                    raise GrammarError(f"a terminal needs more than {MAX_STATES} automaton states")
                index[reached] = len(subsets)
                subsets.append(reached)
            row.append(index[reached])
        rows.append(row)
    return _trimmed(bytes(classes), rows, [not final.isdisjoint(subset) for subset in subsets])


def concatenation(parts: Sequence[Dfa], deadline: Deadline = NEVER) -> Dfa:
    """Texts of all parts, one after the other; raises as `determinise`."""
    nfa = Nfa()
    start = here = nfa.state()
    for part in parts:
        ends = nfa.embed(part, here)
        here = nfa.state()
        for end in ends:
            nfa.empty[end].append(here)
    return determinise(nfa, start, {here}, deadline)


def union(parts: Sequence[Dfa], deadline: Deadline = NEVER) -> Dfa:
    """Texts of any part; raises as `determinise`."""
    nfa = Nfa()
    start = nfa.state()
    ends = [end for part in parts for end in nfa.embed(part, start)]
    return determinise(nfa, start, ends, deadline)


def repetition(one: Dfa, least: int, most: int | None) -> Dfa:
    """`least` to `most` (None = any number) texts of `one`, none of which begins another."""
    one = _minimal(one)
    last = least if most is None else most
    size = len(one.rows)
    if (last + 1) * size > MAX_STATES:
        raise GrammarError(f"a terminal needs more than {MAX_STATES} automaton states")
    rows, accepting = [], []
    for count in range(last + 1):
        following = count if count == last and most is None else count + 1
        for state, row in enumerate(one.rows):
            accepting.append(state == 0 and count >= least)
            moved = []
            for target in row:
                if target == DEAD or following > last:
                    moved.append(DEAD)
                elif one.accepting[target]:
                    moved.append(following * size)
                else:
                    moved.append(count * size + target)
            rows.append(moved)
    return _trimmed(one.classes, rows, accepting)


def intersection(left: Dfa, right: Dfa, deadline: Deadline = NEVER) -> Dfa:
    """Texts in both; raises as `determinise`."""
    return _product(left, right, False, deadline)


def difference(left: Dfa, right: Dfa, deadline: Deadline = NEVER) -> Dfa:
    """Texts of `left` that are not in `right`; raises as `determinise`."""
    return _product(left, right, True, deadline)


def _classes(nfa: Nfa) -> tuple[list[int], list[int]]:
    """Class of every byte, increasing with the byte, and the lowest byte of each class."""
    cuts = {0}
    for moves in nfa.moves:
        for low, high, _ in moves:
            cuts.add(low)
            cuts.add(high + 1)
    lows = sorted(cut for cut in cuts if cut < 256)
    classes = []
    for cls, low in enumerate(lows):
        end = lows[cls + 1] if cls + 1 < len(lows) else 256
        classes += [cls] * (end - low)
    return classes, lows


def _closure(nfa: Nfa, state: int) -> frozenset[int]:
    reached, waiting = {state}, [state]
    while waiting:
        for target in nfa.empty[waiting.pop()]:
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    return frozenset(reached)


def _product(left: Dfa, right: Dfa, subtract: bool, deadline: Deadline) -> Dfa:
    pairs = sorted({(left.classes[b], right.classes[b]) for b in range(256)})
    number = {pair: i for i, pair in enumerate(pairs)}
    classes = bytes(number[left.classes[b], right.classes[b]] for b in range(256))
    index = {(0, 0): 0}
    states = [(0, 0)]
    rows: list[list[int]] = []
    accepting = []
    for a, b in states:  # grows while it is walked
        deadline.check()
        theirs = b != DEAD and right.accepting[b]
        accepting.append(left.accepting[a] and theirs != subtract)
        row = []
        for cls_a, cls_b in pairs:
            c = left.rows[a][cls_a]
            d = DEAD if b == DEAD else right.rows[b][cls_b]
            if c == DEAD or (d == DEAD and not subtract):
                row.append(DEAD)
                continue
            if (c, d) not in index:
                if len(states) >= MAX_STATES:
                    raise GrammarError(f"a terminal needs more than {MAX_STATES} automaton states")
                index[c, d] = len(states)
                states.append((c, d))
            row.append(index[c, d])
        rows.append(row)
    return _trimmed(classes, rows, accepting)


def _minimal(dfa: Dfa) -> Dfa:
    """The same texts with as few states as possible (Moore's refinement, for small automata)."""
    block = [int(accepts) for accepts in dfa.accepting]
    while True:
        known: dict[object, int] = {}
        finer = [
            known.setdefault((block[s], *(t if t == DEAD else block[t] for t in row)), len(known))
            for s, row in enumerate(dfa.rows)
        ]
        if len(known) == len(set(block)):
            break
        block = finer
    # The start's block comes first.
    first = {number: block.index(number) for number in sorted(set(block), key=block.index)}
    rename = {number: i for i, number in enumerate(first)} | {DEAD: DEAD}
    block.append(DEAD)  # what a transition to nowhere, -1, leads to
    kept = first.values()
    rows = tuple(tuple(rename[block[target]] for target in dfa.rows[s]) for s in kept)
    return Dfa(dfa.classes, rows, tuple(dfa.accepting[s] for s in kept))


def _trimmed(classes: bytes, rows: list[list[int]], accepting: list[bool]) -> Dfa:
    """Without states that never accept; classes with equal columns merged."""
    sources: list[list[int]] = [[] for _ in rows]
    for state, row in enumerate(rows):
        for target in row:
            if target != DEAD:
                sources[target].append(state)
    useful = {state for state, accepts in enumerate(accepting) if accepts}
    waiting = list(useful)
    while waiting:
        for source in sources[waiting.pop()]:
            if source not in useful:
                useful.add(source)
                waiting.append(source)
    if 0 not in useful:
        raise EmptyLanguage("a terminal matches no text at all")
    reached, waiting = {0}, [0]
    while waiting:
        for target in rows[waiting.pop()]:
            if target in useful and target not in reached:
                reached.add(target)
                waiting.append(target)
    order = sorted(reached)
    rename = {state: i for i, state in enumerate(order)}
    rename[DEAD] = DEAD
    kept = [[rename.get(target, DEAD) for target in rows[state]] for state in order]
    columns: dict[tuple[int, ...], int] = {}
    merged = [columns.setdefault(column, len(columns)) for column in zip(*kept, strict=True)]
    narrow = list(zip(*columns, strict=True))
    return Dfa(
        bytes(merged[cls] for cls in classes),
        tuple(narrow),
        tuple(accepting[state] for state in order),
    )

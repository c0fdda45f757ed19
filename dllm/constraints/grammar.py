"""Context-free grammars whose terminals are automata over bytes, and Lark text read into them.

A sentence is a sequence of terminals, ignored text allowed before the first and after each. Every
way to split a text into terminals counts (scannerless), as in Lark's `dynamic_complete` lexer.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dllm.clock import NEVER, Deadline
from dllm.constraints.automaton import DEAD, Dfa, Nfa, determinise, union
from dllm.constraints.errors import EmptyLanguage, GrammarError
from dllm.constraints.regex import Pattern, compile_pattern
from dllm.constraints.trial import tried


QUICK = 20_000
"""Characters of a grammar up to which Lark is trusted to read it in no time."""
_RELATIVE = re.compile(r"^[ \t]*(%import\s+\.[\w.]*)", re.MULTILINE)


@dataclass(frozen=True)
class Terminal:
    """A lexeme together with the ignored text that may follow it."""

    dfa: Dfa
    not_before: frozenset[int] = frozenset()
    """Bytes that may not follow the lexeme itself."""
    bare: frozenset[int] = frozenset()
    """Accepting states in which no ignored text has been read; kept where `not_before` is not
    empty."""


@dataclass(frozen=True)
class Grammar:
    """Every rule's symbols are keys of `terminals` or left sides of rules, and all are of use."""

    start: str
    rules: Sequence[tuple[str, tuple[str, ...]]]
    terminals: Mapping[str, Terminal] = field(repr=False)

    @classmethod
    def of(
        cls,
        start: str,
        rules: Sequence[tuple[str, tuple[str, ...]]],
        lexemes: Mapping[str, Pattern],
        ignored: Dfa | None = None,
        deadline: Deadline = NEVER,
    ) -> "Grammar":
        """The reduced grammar; ignored text is made part of the terminals.

        Raises `GrammarError` if no text at all can be derived from the start symbol.
        """
        rules = _useful(start, rules, lexemes)
        used = {symbol for _, body in rules for symbol in body}
        terminals = {
            name: _with_ignored(pattern, ignored, deadline)
            for name, pattern in lexemes.items()
            if name in used
        }
        if ignored is not None:
            leading, first = "\nleading", "\nfirst"  # no symbol of a text can have these names
            terminals[leading] = Terminal(_repeated(ignored, deadline))
            rules = [(first, (leading, start)), *rules]
            start = first
        return cls(start, rules, terminals)


def read_lark(text: str, start: str = "start", deadline: Deadline = NEVER) -> Grammar:
    """The grammar of a text in Lark's notation.

    Raises `GrammarError` for text that Lark refuses, terminals that are not regular, or a start
    symbol from which nothing can be derived; `Undecided` at the deadline.
    """
    if len(text) > QUICK:
        tried(deadline, kind="lark", text=text, start=start)
    lark = load_lark(text, start)
    names = {terminal.name for terminal in lark.terminals}
    lexemes = {}
    for terminal in lark.terminals:
        deadline.check()
        pattern = compile_pattern(terminal.pattern.to_regexp(), deadline=deadline)
        if pattern.dfa.nullable:
            raise GrammarError(f"terminal {terminal.name} matches the empty text")
        lexemes[terminal.name] = pattern
    rules = [
        (str(rule.origin.name), tuple(str(symbol.name) for symbol in rule.expansion))
        for rule in lark.rules
    ]
    assert not names & {name for name, _ in rules}
    skipped = [lexemes[name].dfa for name in lark.ignore_tokens]
    ignored = union(skipped, deadline) if skipped else None
    return Grammar.of(start, list(dict.fromkeys(rules)), lexemes, ignored, deadline)


def load_lark(text: str, start: str) -> Any:
    """Lark's own reading of a grammar, as a parser that splits texts in every possible way.

    Raises `GrammarError` with Lark's complaint in one line, and for an import of anything but
    Lark's own grammars: a text has no place beside which another file could lie.
    """
    import lark

    beside = _RELATIVE.search(text)
    if beside is not None:
        raise GrammarError(f"{beside[1]}: only Lark's own grammars can be imported (common.WORD)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of classes that are refused later
            return lark.Lark(
                text,
                start=start,
                parser="earley",
                lexer="dynamic_complete",
                ambiguity="forest",  # nobody asks for a tree
                g_regex_flags=re.ASCII,
            )
    except FileNotFoundError:
        raise GrammarError("%import of a grammar that Lark does not have") from None
    except (lark.exceptions.LarkError, ValueError, RecursionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = lines[0].replace(" in <string>", "") if lines else type(error).__name__
        if first.startswith("Using an undefined rule"):  # of others it says where they are used
            first = f"it has no rule {start} to start with (constraint.start)"
        elif first.endswith(":") and len(lines) > 1:
            first = f"{first} {lines[1]}"
        raise GrammarError(first) from None


def productive(
    rules: Sequence[tuple[str, tuple[str, ...]]], lexemes: Iterable[str]
) -> tuple[set[str], list[int]]:
    """Symbols from which some text can be derived, and how many symbols of each rule can't."""
    found = set(lexemes)
    waiting, users = [], {}
    missing = [len(set(body) - found) for _, body in rules]
    for number, (left, body) in enumerate(rules):
        for symbol in set(body) - found:
            users.setdefault(symbol, []).append(number)
        if not missing[number]:
            waiting.append(left)
    while waiting:
        symbol = waiting.pop()
        if symbol in found:
            continue
        found.add(symbol)
        for number in users.get(symbol, ()):
            missing[number] -= 1
            if not missing[number]:
                waiting.append(rules[number][0])
    return found, missing


def _useful(
    start: str, rules: Sequence[tuple[str, tuple[str, ...]]], lexemes: Mapping[str, Pattern]
) -> list[tuple[str, tuple[str, ...]]]:
    """The rules that occur in the derivation of some text."""
    found, missing = productive(rules, lexemes)
    if start not in found:
        raise EmptyLanguage(f"no text can be derived from the start symbol {start}")
    kept = [rule for rule, open_ in zip(rules, missing, strict=True) if not open_]
    bodies: dict[str, list[tuple[str, ...]]] = {}
    for left, body in kept:
        bodies.setdefault(left, []).append(body)
    reached, waiting = {start}, [start]
    while waiting:
        for body in bodies.get(waiting.pop(), ()):
            for symbol in body:
                if symbol not in reached:
                    reached.add(symbol)
                    waiting.append(symbol)
    return [(left, body) for left, body in kept if left in reached]


def _with_ignored(pattern: Pattern, ignored: Dfa | None, deadline: Deadline) -> Terminal:
    if ignored is None:
        if not pattern.not_before:
            return Terminal(pattern.dfa)
        final = frozenset(s for s, accepts in enumerate(pattern.dfa.accepting) if accepts)
        return Terminal(pattern.dfa, pattern.not_before, final)
    nfa = Nfa()
    start, after = nfa.state(), nfa.state()
    for end in nfa.embed(pattern.dfa, start):
        nfa.empty[end].append(after)
    for end in nfa.embed(ignored, after):
        nfa.empty[end].append(after)
    whole = determinise(nfa, start, {after}, deadline)
    if not pattern.not_before:
        return Terminal(whole)
    return Terminal(whole, pattern.not_before, _bare(whole, pattern.dfa))


def _bare(whole: Dfa, core: Dfa) -> frozenset[int]:
    """States of `whole` that are reached by a text of `core`."""
    seen, waiting, found = {(0, 0)}, [(0, 0)], set()
    moves = {(whole.classes[b], core.classes[b]) for b in range(256)}
    while waiting:
        a, b = waiting.pop()
        if core.accepting[b]:
            found.add(a)
        for cls_a, cls_b in moves:
            pair = whole.rows[a][cls_a], core.rows[b][cls_b]
            if pair[1] != DEAD and pair not in seen:
                seen.add(pair)
                waiting.append(pair)
    return frozenset(found)


def _repeated(dfa: Dfa, deadline: Deadline) -> Dfa:
    """Any number of texts of `dfa`, none included."""
    nfa = Nfa()
    start = nfa.state()
    for end in nfa.embed(dfa, start):
        nfa.empty[end].append(start)
    return determinise(nfa, start, {start}, deadline)

"""Replays recorded answers to "can this text with gaps be completed to a sentence?".

A file holds cases: a grammar in Lark's notation, a canvas of texts and gaps, what a gap is, whether
the text ends after the last piece, and the answer.
"""

from functools import cache
from typing import Any

from dllm.clock import Deadline
from dllm.conform.recorded import FileResult, Places, Recorded, check_cases
from dllm.constraints.checker import Checker, Hole, Piece, Verdict
from dllm.constraints.errors import EmptyLanguage, GrammarError
from dllm.constraints.grammar import read_lark
from dllm.errors import ConfigError


METHOD = "cfg_completable"
_FIELDS = {"grammar": str, "canvas": list[str | None], "gap": str, "end": bool, "completable": bool}
SECONDS = 60.0
"""For one case; an answer that is not there by then is a difference."""


def check(recorded: Recorded, _: Places) -> FileResult:
    """Decides every case of a file."""
    check_cases(recorded, _FIELDS)
    found = (_difference(number, case) for number, case in enumerate(recorded.cases))
    return FileResult.of(recorded.path, found)


def _difference(number: int, case: dict[str, Any]) -> str | None:
    hole = {"any": Hole(), "one": Hole(1)}[case["gap"]]
    pieces: list[Piece] = [hole if text is None else text.encode() for text in case["canvas"]]
    answer = Verdict.NO
    try:
        longest = sum(piece == Hole(1) for piece in pieces)
        checker = _checker(case["grammar"], max(longest, 1))
        answer = checker.completable(pieces, case["end"], Deadline.after(SECONDS))
    except EmptyLanguage:
        pass
    except GrammarError as error:
        raise ConfigError(f"case {number}: {error}") from None
    expected = Verdict.YES if case["completable"] else Verdict.NO
    return None if answer is expected else f"case {number}: {answer.value} not {expected.value}"


@cache
def _checker(grammar: str, longest: int) -> Checker:
    return Checker.of(read_lark(grammar), longest)

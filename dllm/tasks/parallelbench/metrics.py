"""ParallelBench's metrics on lists and grids, as version 1 of the benchmark computes them.

Every metric is read twice: leniently (the reported score) and strictly (the exact notation of the
reference). Both repeat quirks of the benchmark on purpose: single quotes are never removed, a line
break inside a list stays part of its item, and a grid may be surrounded by any text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dllm.tasks.base import Grade


@dataclass(frozen=True)
class Score:
    """Whether an output is right in its content and, beyond that, in its notation."""

    lenient: bool
    strict: bool

    def grade(self, output: str) -> Grade:
        """As a task says it; from an empty output no answer can be read."""
        return Grade(
            correct=self.lenient,
            unparsed=not output.strip(),
            scores={"score_strict": float(self.strict)},
        )


Metric = Callable[[str, Any], Score]
"""(output, label as in the file) -> score."""


def read_list(text: str, *, strict: bool) -> list[str] | None:
    """The last bracketed list in `text`; None if it is not one (only strictness can say so).

    Lenient: brackets and double quotes may be missing. Strict: `["a", "b"]`, exactly.
    """
    if strict and ("[" not in text or "]" not in text.rpartition("[")[2]):
        return None
    inner = text.rpartition("[")[2].partition("]")[0]
    if not strict:
        return [item.strip('" ') for item in inner.split(",") if item.strip()]
    items = inner.split(", ")
    if not all(item.startswith('"') and item.endswith('"') for item in items):
        return None
    names = [item[1:-1] for item in items]
    return None if any('"' in name for name in names) else names


def _on_list(judge: Callable[[list[str], Any], bool]) -> Metric:
    """A metric on the list that is read from the output."""

    def metric(output: str, label: Any) -> Score:
        given = [read_list(output, strict=strict) for strict in (False, True)]
        lenient, strict = (names is not None and judge(names, label) for names in given)
        return Score(lenient, strict)

    return metric


def _matches(given: list[str], label: str) -> bool:
    return given == read_list(label, strict=False)


def _is_shuffled(given: list[str], label: Mapping[str, Any]) -> bool:
    return sorted(given) == sorted(label["input"]) and given != label["input"]


def _has_insertion(given: list[str], label: Mapping[str, Any]) -> bool:
    if label["word"] not in given:
        return False
    at = given.index(label["word"])
    return given[:at] + given[at + 1 :] == label["input"]


def _has_removal(given: list[str], label: Mapping[str, Any]) -> bool:
    items: Sequence[str] = label["input"]
    missing = set(items) - set(given)
    if len(given) != len(items) - 1 or len(missing) != 1:
        return False
    at = items.index(missing.pop())
    return given == [*items[:at], *items[at + 1 :]]


def _has_replacement(given: list[str], label: Mapping[str, Any]) -> bool:
    items: Sequence[str] = label["input"]
    if len(given) != len(items) or label["word"] not in given:
        return False
    at = given.index(label["word"])
    return given == [*items[:at], label["word"], *items[at + 1 :]]


def _latin_square(output: str, label: Mapping[str, Any]) -> Score:
    """The first rows that hold every symbol, among any other lines, must form a square."""
    symbols = set(label["symbols"])
    lines = [[cell.strip() for cell in line.split(",")] for line in output.split("\n")]
    rows = [cells for cells in lines if set(cells) == symbols][: len(symbols)]
    # columns end with the shortest row, whose repeated symbols make the others longer
    columns = zip(*rows, strict=False)
    right = len(rows) == len(symbols) and all(set(column) == symbols for column in columns)
    return Score(right, right)


def _sudoku(output: str, label: str) -> Score:
    solution = [[int(digit) for digit in row] for row in label.split("\n")]
    size = len(solution)
    lines = [line.strip() for line in output.split("\n") if line.strip()]
    found = [[int(digit) for digit in re.findall(r"\d", line)] for line in lines]
    lenient = [row for row in found if len(row) == size]
    bare = all(re.fullmatch(rf"\d{{{size}}}", line) for line in lines)
    return Score(lenient == solution, bare and found == solution)


METRICS: Mapping[str, Metric] = {
    "list_match_score": _on_list(_matches),
    "list_shuffle_score": _on_list(_is_shuffled),
    "list_random_insert_score": _on_list(_has_insertion),
    "list_random_remove_score": _on_list(_has_removal),
    "list_random_replace_score": _on_list(_has_replacement),
    "latin_square_score": _latin_square,
    "sudoku_score": _sudoku,
}
"""By the name that the benchmark's task_config.yaml uses."""

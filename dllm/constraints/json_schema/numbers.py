"""Numbers within bounds as regular expressions over their digits."""

from __future__ import annotations

import math
from fractions import Fraction

from dllm.constraints.automaton import DEAD, Dfa
from dllm.constraints.errors import EmptyLanguage


DIGITS = 16
"""Of an integer part without a bound: beyond, binary floats lose digits."""
INTEGER = rf"-?(0|[1-9][0-9]{{0,{DIGITS - 1}}})"
NUMBER = rf"{INTEGER}(\.[0-9]{{1,{DIGITS}}})?([eE][+-]?[0-9]{{1,2}})?"


def integers(low: int | None, high: int | None) -> str:
    """Integers in [low, high]; None = no bound.

    Raises `EmptyLanguage` if there are none.
    """
    if low is None and high is None:
        return INTEGER
    limit = 10 ** max(DIGITS, len(str(abs(low or 0))) + 1, len(str(abs(high or 0))) + 1) - 1
    first = -limit if low is None else low
    last = limit if high is None else high
    if first > last:
        raise EmptyLanguage(f"no integer is in [{first}, {last}]")
    parts = []
    if first < 0:
        parts.append(f"-({_natural(max(1, -last), -first)})")
    if last >= 0:
        parts.append(_natural(max(0, first), last))
    return "|".join(parts)


def numbers(low: Fraction | None, high: Fraction | None, open_low: bool, open_high: bool) -> str:
    """Numbers between the bounds, written without exponent; open bounds are left out themselves.

    A fraction follows an integer part only where every fraction is within the bounds.
    """
    if low is None and high is None:
        return NUMBER
    first = None if low is None else _above(low, open_low)
    last = None if high is None else _below(high, open_high)
    parts = []
    # Few digits: rounded to a float, a fraction must not reach the next integer.
    fraction = r"\.[0-9]{1,6}"
    if first is None or last is None or first <= last:
        parts.append(f"({integers(first, last)})")
    # n.f lies in [n, n + 1), -n.f in (-n - 1, -n].
    lowest, highest = first, None if high is None else math.floor(high) - 1
    if highest is None or highest >= 0:
        from_zero = 0 if lowest is None else max(0, lowest)
        if highest is None or from_zero <= highest:
            parts.append(f"({integers(from_zero, highest)}){fraction}")
    lowest, highest = None if low is None else math.ceil(low) + 1, last
    if lowest is None or lowest <= 0:
        to_zero = 0 if highest is None else min(0, highest)
        if lowest is None or lowest <= to_zero:
            least = 0 if lowest is None else -lowest
            most = f"({integers(-to_zero, least if lowest is not None else None)})"
            parts.append(f"-{most}{fraction}")
    if not parts:
        assert low is not None and high is not None
        parts += _between(low, high, open_low, open_high)
    return "|".join(parts)


def whole(low: Fraction | None, high: Fraction | None, open_low: bool, open_high: bool) -> str:
    """Integers between the bounds."""
    return integers(
        None if low is None else _above(low, open_low),
        None if high is None else _below(high, open_high),
    )


def _above(low: Fraction, is_open: bool) -> int:
    return math.floor(low) + 1 if is_open else math.ceil(low)


def _below(high: Fraction, is_open: bool) -> int:
    return math.ceil(high) - 1 if is_open else math.floor(high)


def _between(low: Fraction, high: Fraction, open_low: bool, open_high: bool) -> list[str]:
    """Some decimals between bounds that no integer lies between."""
    for places in range(1, DIGITS):
        scale = 10**places
        first, last = _above(low * scale, open_low), _below(high * scale, open_high)
        if first <= last:
            values = range(first, min(last, first + 99) + 1)
            return [
                f"{'-' if n < 0 else ''}{abs(n) // scale}\\.{abs(n) % scale:0{places}d}"
                for n in values
            ]
    raise EmptyLanguage(f"no decimal is between {low} and {high}")


def _natural(low: int, high: int) -> str:
    """Integers of [low, high], 0 <= low <= high, without leading zeros."""
    parts = []
    while low <= high:
        end = min(high, 10 ** len(str(low)) - 1)
        parts.append(_same_length(str(low), str(end)))
        low = end + 1
    return "|".join(parts)


def _same_length(low: str, high: str) -> str:
    if low == high:
        return low
    rest = len(low) - 1
    if low == "0" * len(low) and high == "9" * len(high):
        return f"[0-9]{{{len(low)}}}"
    if rest == 0:
        return f"[{low}-{high}]"
    if low[0] == high[0]:
        return f"{low[0]}({_same_length(low[1:], high[1:])})"
    parts = []
    first, last = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        parts.append(f"{low[0]}({_same_length(low[1:], '9' * rest)})")
        first += 1
    if high[1:] != "9" * rest:
        parts.append(f"{high[0]}({_same_length('0' * rest, high[1:])})")
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}][0-9]{{{rest}}}")
    return "|".join(parts)


def multiples(step: int) -> Dfa:
    """Integers that `step` divides, in decimal digits."""
    digits = [[(rest * 10 + d) % step + 1 for d in range(10)] for rest in range(step)]
    # State 0 stands before the first digit, state 1 + r after digits with the remainder r, the last
    # one after the sign.
    rows = [[*digits[0], step + 1], *([*row, DEAD] for row in digits), [*digits[0], DEAD]]
    classes = bytearray([11]) * 256
    for d in range(10):
        classes[0x30 + d] = d
    classes[0x2D] = 10
    accepting = [state == 1 for state in range(step + 2)]
    return Dfa(bytes(classes), tuple((*row, DEAD) for row in rows), tuple(accepting))

"""Numbers within bounds as regular expressions over their digits."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from fractions import Fraction
from functools import reduce

from dllm.clock import Deadline
from dllm.constraints.automaton import DEAD, Dfa, intersection
from dllm.constraints.errors import EmptyLanguage, GrammarError, Unspelled
from dllm.constraints.regex import compile_pattern


DIGITS = 16
"""Of an integer part without a bound: beyond, binary floats lose digits."""
EXACT = 10**9
"""Up to here, rounding to a float takes no fraction of six digits to the next integer."""
LARGEST = 10**15
"""Up to here, floats hold every integer and its half."""
MANY = 100
"""Decimals that are written out where no rule gives some."""
MAX_STEP = 1000
"""Largest divisor: each remainder is a state."""
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

    Raises `EmptyLanguage` if there are none, `Unspelled` if they take too many digits.
    """
    if low is None and high is None:
        return NUMBER
    parts = _with_fractions(low, high, open_low, open_high, r"\.[0-9]{1,6}")
    if not parts:
        assert low is not None and high is not None
        parts += _between(low, high, open_low, open_high)
    return "|".join(parts)


def _with_fractions(
    low: Fraction | None, high: Fraction | None, open_low: bool, open_high: bool, fraction: str
) -> list[str]:
    """Integers between the bounds, and a fraction behind those after which every one is within."""
    first = None if low is None else _above(low, open_low)
    last = None if high is None else _below(high, open_high)
    parts = []
    if first is None or last is None or first <= last:
        parts.append(f"({integers(first, last)})")
    # n.f lies in [n, n + 1), -n.f in (-n - 1, -n].
    lowest, highest = first, None if high is None else math.floor(high) - 1
    if open_high and highest is not None:
        highest = min(highest, EXACT)
    if highest is None or highest >= 0:
        from_zero = 0 if lowest is None else max(0, lowest)
        if highest is None or from_zero <= highest:
            parts.append(f"({integers(from_zero, highest)}){fraction}")
    lowest, highest = None if low is None else math.ceil(low) + 1, last
    if open_low and lowest is not None:
        lowest = max(lowest, -EXACT)
    if lowest is None or lowest <= 0:
        to_zero = 0 if highest is None else min(0, highest)
        if lowest is None or lowest <= to_zero:
            least = None if lowest is None else -lowest
            parts.append(f"-({integers(-to_zero, least)}){fraction}")
    return parts


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
    if low > high or (low == high and (open_low or open_high)):
        raise EmptyLanguage(f"no number is between {low} and {high}")
    for places in range(1, DIGITS):
        scale = 10**places
        first, last = _above(low * scale, open_low), _below(high * scale, open_high)
        texts = (decimal(n, places) for n in range(first, min(last, first + MANY) + 1))
        # Rounding to a float can reach an open bound.
        if found := [
            re.escape(text)
            for text in texts
            if not (open_low and float(text) <= low) and not (open_high and float(text) >= high)
        ]:
            return found
    raise Unspelled("exclusiveMinimum" if open_low else "minimum")


def multiples_between(
    steps: list[Fraction],
    low: Fraction | None,
    high: Fraction | None,
    open_low: bool,
    open_high: bool,
    fractions: bool,
    deadline: Deadline,
) -> Dfa:
    """Multiples of all steps between the bounds that floats find to be multiples, too.

    These are the whole ones, those with a half or quarter behind the point (binary floats hold
    them) if `fractions` may be, and where the bounds leave none of them, some others.
    """
    step = reduce(_common, steps)
    divisor = step.numerator
    if divisor > MAX_STEP:
        raise GrammarError(f"multipleOf={float(step):g} is not supported: more than {MAX_STEP}")
    bounds = low, high, open_low, open_high
    if all(map(_divides_well, steps)):
        if divisor == 1 and fractions:
            behind = [f for f in ("25", "50?", "75") if Fraction(int(f[:2]), 100) % step == 0]
            parts = _with_fractions(*bounds, rf"\.({'|'.join(['00?', *behind])})")
            if parts:
                return compile_pattern("|".join(parts), deadline=deadline).dfa
        else:
            least, most = Fraction(-LARGEST), Fraction(LARGEST)
            within = (
                max(least, low if low is not None else least),
                min(most, high if high is not None else most),
            )
            with suppress(EmptyLanguage):
                integer = compile_pattern(whole(*within, open_low, open_high), deadline=deadline)
                return intersection(integer.dfa, multiples(divisor), deadline)
    if low is not None and high is not None:
        first, last = _above(low / step, open_low), _below(high / step, open_high)
        if first > last:
            raise EmptyLanguage(f"no multiple of {step} is between {low} and {high}")
        places = next((n for n in range(1, DIGITS) if (step * 10**n).denominator == 1), None)
        if fractions and places is not None:
            texts = (
                decimal(int(n * step * 10**places), places)
                for n in range(first, min(last, first + MANY) + 1)
            )
            found = [text for text in texts if _divided(float(text), steps)]
            if found:
                short = [text.rstrip("0").rstrip(".") for text in found]
                spelled = "|".join(map(re.escape, [*found, *short]))
                return compile_pattern(spelled, deadline=deadline).dfa
    raise Unspelled("multipleOf")


def _common(left: Fraction, right: Fraction) -> Fraction:
    """The least number of which both are divisors."""
    scale = math.lcm(left.denominator, right.denominator)
    return Fraction(math.lcm(int(left * scale), int(right * scale)), scale)


def _divides_well(step: Fraction) -> bool:
    """Whether every multiple that a float holds is one to floats: a quotient is at most twice its
    power of two, so that half an error at most does not reach the next float."""
    return abs(Fraction(float(step)) - step) / step <= Fraction(1, 2**54)


def _divided(value: float, steps: list[Fraction]) -> bool:
    return all((value / float(step)).is_integer() for step in steps)


def decimal(n: int, places: int) -> str:
    """n / 10 ** places."""
    whole, fraction = divmod(abs(n), 10**places)
    return f"{'-' if n < 0 else ''}{whole}.{fraction:0{places}d}"


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

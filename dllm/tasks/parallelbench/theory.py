"""What decoding several items per step must cost: ParallelBench's closed forms.

arXiv 2510.04767, section 3. Of n items, given a prompt, an ideal model knows every item's marginal;
items of one step are drawn as if independent, and the divergence from the true distribution is at
least the conditional total correlation of each step, summed in bits. Items are single tokens.
"""

from collections.abc import Sequence
from functools import cache
from math import factorial, log2, prod
from typing import Literal


Kind = Literal["copy", "replace_random", "shuffle"]


def equal_steps(items: int, per_step: int) -> tuple[int, ...]:
    """Sizes of the steps, the last one smaller where they do not divide."""
    full, rest = divmod(items, per_step)
    return (per_step,) * full + ((rest,) if rest else ())


def lower_bound(kind: Kind, sizes: Sequence[int]) -> float:
    """Bits lost at least by decoding in steps of these sizes; all in one step = the total
    correlation.

    copy: 0. shuffle: sum of s log2 m over the steps, m items left, minus log2 n!. replace_random:
    per step, while the new word is still to come (probability m / n), s h(1/m) minus what the
    step's own outcome holds (derived here, checked by enumeration; the paper gives one step).
    """
    items = sum(sizes)
    left = [items - sum(sizes[:at]) for at in range(len(sizes))]
    if kind == "copy":
        return 0.0
    if kind == "shuffle":
        drawn = sum(s * log2(m) for s, m in zip(sizes, left, strict=True))
        return max(0.0, drawn - log2(factorial(items)))
    total = 0.0
    for s, m in zip(sizes, left, strict=True):
        none = (m - s) / m
        joint = s / m * log2(m) - (none * log2(none) if none else 0.0)
        total += m / items * (s * _entropy(1 / m) - joint)
    return max(0.0, total)


def _entropy(p: float) -> float:
    """Of a binary choice, in bits."""
    return -sum(q * log2(q) for q in (p, 1 - p) if q > 0)


def sampled_accuracy(kind: Kind, sizes: Sequence[int]) -> float:
    """Probability of a right answer if the ideal model's items are drawn at temperature 1."""
    if kind == "copy":
        return 1.0
    if kind == "shuffle":
        # a step of s items out of m is right if they are different: (m)_s / m^s
        left, right = sum(sizes), 1.0
        for s in sizes:
            right *= prod((left - i) / left for i in range(s))
            left -= s
        return right

    @cache
    def one_word(at: int, left: int, to_come: bool) -> float:
        if at == len(sizes):
            return float(not to_come)
        s = sizes[at]
        if not to_come:
            return one_word(at + 1, left - s, False)
        none = (1 - 1 / left) ** s
        once = s / left * (1 - 1 / left) ** (s - 1)
        later = one_word(at + 1, left - s, True) if none else 0.0
        return none * later + once * one_word(at + 1, left - s, False)

    return one_word(0, sum(sizes), True)

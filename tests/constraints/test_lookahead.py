"""Worked examples of the lookahead, on bytes as tokens: lists of numbers in brackets."""

import re
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from dllm.constraints.lookahead import Lookahead


MASK, END = 256, 257
LIST = re.compile(r"\[[0-9]+(,[0-9]+)*\]")


class Lists:
    """The language by hand: a prefix is viable if some short ending makes a list of it."""

    def viable(self, prefix: Sequence[int]) -> bool:
        text = "".join(map(chr, prefix))
        return any(LIST.fullmatch(text + end) for end in ("", "]", "0]", "[0]"))

    def accepting(self, prefix: Sequence[int]) -> bool:
        return LIST.fullmatch("".join(map(chr, prefix))) is not None

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        found = [self.viable([*prefix, byte]) for byte in range(256)]
        return np.array([*found, False, self.accepting(prefix)])


def ids(text: str) -> list[int]:
    return [{"_": MASK, "$": END}.get(letter, ord(letter)) for letter in text]


def spread(**given: float) -> np.ndarray:
    p = np.zeros(258)
    for name, value in given.items():
        p[MASK if name == "mask" else ord(NAMES.get(name, name[-1]))] = value
    return p


NAMES = {"comma": ",", "close": "]", "open": "[", "brace": "{"}


def verified(text: str, beams: int, **p: np.ndarray) -> str | None:
    lookahead = Lookahead(Lists(), MASK, frozenset((END,)), 3, beams, 0)
    given = {int(name[1:]): value for name, value in p.items()}
    found = lookahead.verified(ids(text), len(text), given, Random(0))
    if found is None:
        return None
    return "".join({MASK: "_", END: "$"}.get(token, chr(token)) for token in found)


P1 = spread(n1=0.6, comma=0.3, close=0.05)


def test_the_only_filling_that_parses_survives() -> None:
    assert verified("[__]____", 2, p1=P1, p2=spread(comma=0.5, n2=0.3, n1=0.1)) == "[12]____"


@pytest.mark.parametrize(("beams", "expected"), [(2, None), (3, "[12]____")])
def test_a_narrow_beam_refuses_what_a_wider_one_finds(beams: int, expected: str | None) -> None:
    p2 = spread(comma=0.5, close=0.3, n2=0.2)
    assert verified("[__]____", beams, p1=P1, p2=p2) == expected


def test_tokens_in_between_prune() -> None:
    found = verified(
        "___,_]__",
        2,
        p0=spread(open=0.7, brace=0.2, n1=0.05),
        p1=spread(n3=0.4, n4=0.3, mask=0.2),
        p2=spread(n5=0.5, comma=0.4, close=0.05),
        p4=spread(n9=0.6, close=0.3, comma=0.1),
    )
    assert found == "[35,9]__"


P2, P3 = spread(comma=0.5, close=0.3, n4=0.1), spread(n7=0.2, close=0.6, comma=0.1)


def test_before_an_end_the_text_must_be_finished() -> None:
    fine, late = spread(close=0.4, n8=0.3, comma=0.2), spread(close=0.3, n8=0.4, comma=0.2)
    assert verified("[1___$$$", 2, p2=P2, p3=P3, p4=fine) == "[1,7]$$$"
    assert verified("[1___$$$", 2, p2=P2, p3=P3, p4=late) is None


def test_the_end_may_come_earlier() -> None:
    p2 = spread(close=0.5, comma=0.3, n4=0.1)
    assert verified("[1___$$$", 2, p2=p2, p3=P3, p4=P3) == "[1]$$$$$"


def test_no_end_left_of_a_decided_token() -> None:
    assert verified("[1$2____", 2) is None

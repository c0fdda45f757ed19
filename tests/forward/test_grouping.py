"""Which sequences share a forward; tokens do not depend on it."""

from copy import deepcopy
from math import inf
from typing import Any

import numpy as np
import pytest
from pretended_device import moved, pretended
from tiny_decoding import ragged_prompts, random_model, sampler

from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.forward import predictor
from dllm.forward.grouping import ACCELERATOR, CPU, Machine, groups
from dllm.forward.predictor import Predictor
from dllm.models.transformer import Transformer


def slots(*widths: int) -> np.ndarray:
    index = np.arange(max(widths))
    return np.where(index < np.array(widths)[:, None], index, -1)


def found(fed: np.ndarray, forward: int, most: float = inf, picks: bool = False) -> list:
    machine = Machine(forward=forward, most=most, picks=picks)
    return [(entries.tolist(), rows) for entries, rows in groups(fed, machine)]


def test_one_wide_sequence_does_not_pad_its_neighbours() -> None:
    fed = slots(4, 4, 90, 4)
    assert found(fed, 32) == [([0, 1], 4), ([2], 90), ([3], 4)]
    assert found(fed, 32, picks=True) == [([0, 1, 3], 4), ([2], 90)]


def test_padding_that_costs_less_than_a_forward_is_computed() -> None:
    assert found(slots(30, 4), 26) == [([0, 1], 30)]
    assert found(slots(30, 4), 25) == [([0], 30), ([1], 4)]
    assert found(slots(30, 4), 26, picks=True) == [([0, 1], 30)]


def test_a_sequence_that_feeds_nothing_needs_no_forward() -> None:
    assert found(slots(0, 9, 0), 32) == [([0], 0), ([1], 9), ([2], 0)]


def test_no_forward_has_more_rows_than_pay_but_that_of_one_sequence() -> None:
    *others, last = found(slots(*[100] * 7, 900), 32, 512)
    assert last == ([7], 900)
    assert [len(entries) * rows <= 512 for entries, rows in others] == [True, True]


def test_padding_inside_a_sequence_belongs_to_it() -> None:
    inside = np.array([[0, 1, -1, 5], [0, 1, -1, -1]])
    assert found(inside, 0) == [([0], 4), ([1], 2)]


def decoded(model: Transformer, cache: str) -> dict[str, tuple[Any, int]]:
    policy = build(compose([f"cache={cache}"]).cache, "cache")
    rule = sampler("sampler=threshold", "sampler.threshold=0.3")
    decoder = Decoder(Predictor(model), rule, policy, batch_size=4)
    outcomes = decoder.decode(ragged_prompts())
    return {o.sample_id: (o.tokens, o.cost.nfe) for o in outcomes}


@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "window"])
def test_tokens_do_not_depend_on_it(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = random_model(), []
    for machine in (
        Machine(forward=10**6, most=inf, picks=False),
        Machine(forward=0, most=0, picks=False),
        Machine(forward=0, most=inf, picks=True),
    ):
        monkeypatch.setattr(predictor, "CPU", machine)
        found.append(decoded(model, cache))
    assert found[0] == found[1] == found[2]


def test_a_refresh_pads_the_others_on_an_accelerator_only() -> None:
    def sizes(*widths: int) -> list[list[int]]:
        return [
            [entries.size for entries, _ in groups(slots(*widths), machine)]
            for machine in (ACCELERATOR, CPU)
        ]

    assert sizes(*[32] * 7, 128, *[32] * 8) == [[16], [7, 1, 8]]
    # One more forward is cheaper there, too: of all refreshes together.
    assert sizes(*[32] * 7, 192, *[32] * 7, 192) == [[14, 2], [7, 1, 7, 1]]


def test_an_accelerator_makes_fewer_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = random_model(), []
    hidden = Transformer.hidden

    def counted(self: Transformer, tokens: Any, *arguments: Any, **named: Any) -> Any:
        made[-1] += 1
        return hidden(self, tokens, *arguments, **named)

    monkeypatch.setattr(Transformer, "hidden", counted)
    monkeypatch.setattr(predictor, "CPU", Machine(forward=8, most=512, picks=False))
    made.append(0)
    here = decoded(model, "dual")
    made.append(0)
    with pretended(monkeypatch):
        far = deepcopy(model)
        moved(far)
        there = decoded(far, "dual")
    assert there == here
    assert made[1] < made[0]

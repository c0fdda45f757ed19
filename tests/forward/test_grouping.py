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


def test_one_wide_sequence_does_not_pad_its_neighbours() -> None:
    found = groups(slots(4, 4, 90, 4), Machine(forward=32, most=inf))
    assert found == [(0, 2, 4), (2, 3, 90), (3, 4, 4)]


def test_padding_that_costs_less_than_a_forward_is_computed() -> None:
    assert groups(slots(30, 4), Machine(forward=26, most=inf)) == [(0, 2, 30)]
    assert groups(slots(30, 4), Machine(forward=25, most=inf)) == [(0, 1, 30), (1, 2, 4)]


def test_a_sequence_that_feeds_nothing_needs_no_forward() -> None:
    found = groups(slots(0, 9, 0), Machine(forward=32, most=inf))
    assert found == [(0, 1, 0), (1, 2, 9), (2, 3, 0)]


def test_no_forward_has_more_rows_than_pay_but_that_of_one_sequence() -> None:
    machine = Machine(forward=32, most=512)
    found = groups(slots(*[100] * 7, 900), machine)
    assert found[-1] == (7, 8, 900)
    assert [(end - first) * width <= 512 for first, end, width in found[:-1]] == [True, True]


def test_padding_inside_a_sequence_belongs_to_it() -> None:
    inside = np.array([[0, 1, -1, 5], [0, 1, -1, -1]])
    assert groups(inside, Machine(forward=0, most=inf)) == [(0, 1, 4), (1, 2, 2)]


def decoded(model: Transformer, cache: str) -> dict[str, tuple[Any, int]]:
    policy = build(compose([f"cache={cache}"]).cache, "cache")
    rule = sampler("sampler=threshold", "sampler.threshold=0.3")
    decoder = Decoder(Predictor(model), rule, policy, batch_size=4)
    outcomes = decoder.decode(ragged_prompts())
    return {o.sample_id: (o.tokens, o.cost.nfe) for o in outcomes}


@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "window"])
def test_tokens_do_not_depend_on_it(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = random_model(), []
    for machine in (Machine(forward=10**6, most=inf), Machine(forward=0, most=0)):
        monkeypatch.setattr(predictor, "CPU", machine)
        found.append(decoded(model, cache))
    assert found[0] == found[1]


def test_a_refresh_pads_its_neighbours_on_an_accelerator_only() -> None:
    mixed = slots(*[32] * 7, 128, *[32] * 8)
    assert groups(mixed, ACCELERATOR) == [(0, 16, 128)]
    assert groups(mixed, CPU) == [(0, 7, 32), (7, 8, 128), (8, 16, 32)]


def test_an_accelerator_makes_fewer_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = random_model(), []
    hidden = Transformer.hidden

    def counted(self: Transformer, tokens: Any, *arguments: Any, **named: Any) -> Any:
        made[-1] += 1
        return hidden(self, tokens, *arguments, **named)

    monkeypatch.setattr(Transformer, "hidden", counted)
    monkeypatch.setattr(predictor, "CPU", Machine(forward=8, most=512))
    made.append(0)
    here = decoded(model, "dual")
    made.append(0)
    with pretended(monkeypatch):
        far = deepcopy(model)
        moved(far)
        there = decoded(far, "dual")
    assert there == here
    assert made[1] < made[0]

"""Rho-EOS's canvas, which grows and shrinks: worked examples."""

import pytest
import torch
from scripted import built
from written import toy

from samplers.rho_eos import RhoEOS


@pytest.mark.parametrize(
    ("rho", "change"),
    [
        *((0, 64), (0.05, 64), (0.15, 32), (0.25, 16), (0.31, 8), (0.39, 8), (0.4, 0), (0.5, 0)),
        *((0.6, 0), (0.61, -8), (0.7, -8), (0.75, -16), (0.85, -32), (0.95, -64), (1, -64)),
    ],
)
def test_rho_eos_table(rho: float, change: int):
    rule = built("sampler=rho_eos")
    assert isinstance(rule, RhoEOS)
    assert rule.change(torch.tensor([rho], dtype=torch.float64)).tolist() == [change]


def test_rho_eos_as_released_can_delete_the_answer_and_ours_can_not():
    released = ("sampler.rho=eosconf", "sampler.cut_committed=true")
    finals = {n: len(toy(built("sampler=rho_eos", *released), n).tokens) for n in (10, 60, 100)}
    assert finals == {10: 0, 60: 32, 100: 96}
    for true_length in (10, 60):
        outcome = toy(built("sampler=rho_eos"), true_length)
        assert outcome.tokens[:true_length] == (9,) * true_length

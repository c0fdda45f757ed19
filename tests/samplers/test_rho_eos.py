"""Rho-EOS's canvas, which grows and shrinks: worked examples."""

import pytest
import torch
from scripted import Script, built
from tiny_decoding import EOS
from written import PROMPT, toy

from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.step.canvas import Prompt
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


def test_a_window_that_was_cut_is_whole_again_once_the_answer_has_grown():
    """The window is the block's 8 positions, as long as any of them is masked."""
    ends, unsure, sure = [(9, 0.6), *[(EOS, 0.5)] * 11], [(9, 0.5)] * 12, [(9, 0.95)] * 16
    rule = built(
        "sampler=rho_eos",
        "sampler.step_size=const",
        "sampler.region.block_length=8",
        "sampler.region.initial_length=12",
    )
    predictor = Script([ends, unsure, sure], len(PROMPT))
    decoder = Decoder(predictor, rule, NoCache(), record=True)  # type: ignore[arg-type]
    outcome = next(decoder.decode([Prompt("one", PROMPT, 16)]))
    assert outcome.trace is not None
    steps = outcome.trace.steps
    assert [(step.positions, step.length) for step in steps[:2]] == [([0], 4), ([1], 12)]
    assert [step.positions for step in steps[2:]] == [[2, 3, 4, 5, 6, 7], [*range(8, 16)]]
    assert [step.block for step in steps] == [0, 0, 0, 1]


def test_rho_eos_as_released_can_delete_the_answer_and_ours_can_not():
    released = ("sampler.rho=eosconf", "sampler.cut_committed=true")
    finals = {n: len(toy(built("sampler=rho_eos", *released), n).tokens) for n in (10, 60, 100)}
    assert finals == {10: 0, 60: 32, 100: 96}
    for true_length in (10, 60):
        outcome = toy(built("sampler=rho_eos"), true_length)
        assert outcome.tokens[:true_length] == (9,) * true_length

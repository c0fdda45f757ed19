"""Worked examples of the oracle."""

import pytest
from scripted import Script, built
from tiny_decoding import decode
from written import PROMPT

from dllm.errors import ConfigError
from dllm.step.canvas import Prompt


def test_oracle() -> None:
    reference = (15, 16, 17, 18)
    scenes = [[15, 19, 17, 11], [15, 16, 17, 11], [15, 16, 17, 11]]
    script = [[(token, 0.8) for token in scene] for scene in scenes]
    rule = built("sampler=oracle", "sampler.region.block_length=4")
    prompt = Prompt("one", PROMPT, 4, reference)
    outcome = decode(rule, [prompt], Script(script, 3), record=True)["one"]
    assert outcome.trace is not None
    assert outcome.tokens == reference
    assert outcome.cost.nfe == 3
    assert [step.marks["final"] for step in outcome.trace.steps] == [[0, 2], [0, 1, 2], [0, 1, 2]]
    assert [step.positions for step in outcome.trace.steps] == [[0, 2], [1], [3]]


def test_two_steps_at_most_for_every_position() -> None:
    """Where nothing is predicted right, a block stalls in its second step."""
    rule = built("sampler=oracle", "sampler.region.block_length=1")
    prompt = Prompt("one", PROMPT, 4, (15, 16, 17, 18))
    outcome = decode(rule, [prompt], Script([[(19, 0.8)] * 4], 3), record=True)["one"]
    assert outcome.failure is None and outcome.tokens == prompt.reference
    assert outcome.cost.nfe == 8


def test_oracle_without_reference() -> None:
    rule = built("sampler=oracle", "sampler.region.block_length=4")
    with pytest.raises(ConfigError, match="needs a reference answer of 1 to gen_length=4 tokens"):
        decode(rule, [Prompt("one", PROMPT, 4)])


@pytest.mark.parametrize("proposer", ["gumbel", "categorical", "filtered"])
def test_draws_are_refused(proposer: str) -> None:
    """A block stalls when the arg-maxes repeat; draws of a random proposer need not."""
    with pytest.raises(ConfigError, match="draws at random: use greedy"):
        built("sampler=oracle", f"sampler/proposer={proposer}")

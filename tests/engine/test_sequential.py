"""I_seq: the same path with its tokens revealed one at a time."""

from math import log2

import pytest
from tiny_decoding import SPEC, decode, ragged_prompts, random_model, sampler
from toy_model import PROMPT, OraclePredictor, decoded

from dllm.engine.sequential import one_by_one
from dllm.forward.predictor import Predictor
from dllm.report.bits import SequenceBits
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from dllm.step.sampler import Sampler
from dllm.step.trace import Trace
from dllm.tasks.toy_oracle import ToyOracle


def scored(rule: Sampler, prompt: Prompt, outcome: Outcome, predictor, batch: int = 3) -> Trace:
    assert outcome.trace is not None
    layout = rule.layout(prompt, SPEC)
    outcome.trace.sequential = one_by_one(predictor, prompt, layout, outcome.trace, batch)
    return Trace.from_json(outcome.trace.to_json())


def test_total_correlation_on_an_exact_distribution() -> None:
    """Two tokens that agree, committed together: one of them comes for nothing."""
    oracle = ToyOracle({"aap": 0.6, "bbp": 0.4})
    rule = sampler("sampler=threshold", "sampler.threshold=0.5", "sampler.region.block_length=null")
    (outcome,) = decoded(rule, oracle)
    prompt = Prompt("0", PROMPT, 3)
    trace = scored(rule, prompt, outcome, OraclePredictor(oracle))
    assert [step.positions for step in trace.steps] == [[0, 1, 2]]
    assert trace.sequential == pytest.approx([0.6, 1.0, 1.0])
    found = SequenceBits.of(trace, 3, None)
    assert found.path_bits == pytest.approx(-2 * log2(0.6), abs=1e-5)
    assert found.sequential_bits == pytest.approx(-log2(0.6), abs=1e-5)


def test_one_token_per_step_pays_no_price() -> None:
    """Whatever the batch: each token was predicted with all before it in view."""
    model = Predictor(random_model())
    rule = sampler("sampler=low_confidence", "sampler.region.block_length=null")
    outcomes = decode(rule, ragged_prompts(3), model, record=True, batch_size=2)
    for prompt in ragged_prompts(3):
        outcome = outcomes[prompt.sample_id]
        assert outcome.trace is not None
        path = [p for step in outcome.trace.steps for p in step.probabilities]
        for batch in (1, 5):
            trace = scored(rule, prompt, outcome, model, batch)
            assert trace.sequential == pytest.approx(path, abs=1e-5)


def test_a_path_that_was_revised_has_none() -> None:
    rule = sampler("sampler=wino", "sampler.region.block_length=null")
    outcomes = decode(rule, ragged_prompts(9), record=True)
    revised = 0
    for prompt in ragged_prompts(9):
        outcome = outcomes[prompt.sample_id]
        assert outcome.trace is not None
        if any(step.remasked for step in outcome.trace.steps):
            revised += 1
            trace = scored(rule, prompt, outcome, Predictor(random_model()))
            assert trace.sequential is None
            assert SequenceBits.of(trace, 4, None).sequential_bits is None
    assert revised

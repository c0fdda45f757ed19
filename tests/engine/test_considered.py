"""What a trace keeps of the decisions on request, and a session that changes its mind."""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tiny_decoding import SPEC, decode, ragged_prompts, random_model, sampler

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.session import Session
from dllm.engine.setting import Setting
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.runs.parts import build_parts
from dllm.step.trace import Trace
from samplers.credit import TraceCredit


@pytest.mark.parametrize("name", ["threshold", "wino", "credit"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_alternatives_explain_what_was_committed(name: str, batch_size: int) -> None:
    rule = sampler(f"sampler={name}")
    plain = decode(rule, ragged_prompts(4), batch_size=batch_size)
    kept = decode(rule, ragged_prompts(4), batch_size=batch_size, record=True, alternatives=3)
    for key, outcome in kept.items():
        assert outcome.tokens == plain[key].tokens
        trace = outcome.trace
        assert trace is not None and trace.alternatives == 3
        assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace
        for step in trace.steps:
            assert step.considered is not None
            found = {at: (tokens, p) for at, tokens, p in step.considered.alternatives}
            assert all(0 <= at < trace.gen_length for at in found)
            for at, token, p in zip(step.positions, step.tokens, step.probabilities, strict=True):
                tokens, likely = found[at]
                assert likely == sorted(likely, reverse=True) and len(tokens) == 3
                if token in tokens and p is not None:
                    assert likely[tokens.index(token)] == pytest.approx(p, abs=1e-4)


def test_branches_are_kept_with_the_adopted_one() -> None:
    config = compose(["sampler=freedave", "sampler.base.region.block_length=4"])
    rule = build(config.sampler, "sampler")
    kept = decode(rule, ragged_prompts(4), record=True, alternatives=2)
    compared = [
        step.considered
        for outcome in kept.values()
        for step in (outcome.trace.steps if outcome.trace else [])
        if step.considered is not None and len(step.considered.branches) > 1
    ]
    assert compared
    for found in compared:
        assert found.adopted is not None and found.adopted < len(found.branches)
        assert any(found.branches)


def test_nothing_is_kept_unasked() -> None:
    (outcome,) = decode(sampler(), ragged_prompts(1), record=True).values()
    assert outcome.trace is not None
    assert "alternatives" not in outcome.trace.to_json()
    assert all(step.considered is None for step in outcome.trace.steps)


def test_alternatives_need_a_trace() -> None:
    with pytest.raises(ConfigError, match=r"alternatives=3 .* trace=true"):
        build_parts(compose(["alternatives=3", "trace=false"]))


def session(name: str = "low_confidence") -> tuple[Session, Any]:
    rule = sampler(f"sampler={name}")
    setting = Setting(Predictor(random_model()), rule, NoCache(), record=True)
    made = Session(setting)
    return made, made.submit(ragged_prompts(3)[2])


def test_a_session_goes_on_under_another_rule() -> None:
    made, ticket = session()
    for _ in range(3):
        made.step()
    trace = made.trace(ticket)
    assert trace is not None and len(trace.steps) == 3
    rule = sampler("sampler=threshold", "sampler.threshold=0")
    made.change(Setting(made.setting.predictor, rule, NoCache(), record=True))
    finished = []
    while made.busy:
        finished += made.step().finished
    ((_, outcome),) = finished
    commits = [len(step.positions) for step in outcome.trace.steps]
    assert commits == [1, 1, 1, 1, 4, 4]
    assert SPEC.mask_id not in outcome.tokens and made.trace(ticket) is None


ANOTHER_WAY = r"^{} would remember \w+(, \w+)* in another way than the steps so far have$"


@pytest.mark.parametrize("name", ["klass", "credit"])
def test_a_rule_whose_memory_is_missing_is_refused(name: str) -> None:
    made, _ = session()
    made.step()
    rule = sampler(f"sampler={name}")
    told = r"^\w+ remembers \w+(, \w+)*, which the steps of LowConfidence have not told$"
    with pytest.raises(ConfigError, match=told):
        made.change(Setting(made.setting.predictor, rule, NoCache(), record=True))


def test_a_memory_of_another_shape_is_refused() -> None:
    made, _ = session("klass")
    made.step()
    rule = sampler("sampler=klass", "sampler.history=5")
    with pytest.raises(ConfigError, match=ANOTHER_WAY.format("Klass")):
        made.change(Setting(made.setting.predictor, rule, NoCache(), record=True))


@dataclass(frozen=True, kw_only=True)
class OtherCredit(TraceCredit):
    """Its memory has the same names and shapes, and another meaning."""


def test_a_rule_goes_on_with_its_own_memory_only() -> None:
    """The same rule with other options does; one whose transform is another one does not."""
    credit = sampler("sampler=threshold", "sampler/logits_transform=credit")
    kept = replace(credit, threshold=0.5)
    transform = OtherCredit(**vars(credit.logits_transform))
    made = Session(Setting(Predictor(random_model()), credit, NoCache()))
    made.submit(ragged_prompts(1)[0])
    made.step()
    made.change(replace(made.setting, sampler=kept))
    assert made.setting.sampler is kept
    with pytest.raises(ConfigError, match=ANOTHER_WAY.format("Threshold")):
        made.change(replace(made.setting, sampler=replace(kept, logits_transform=transform)))


def test_a_rule_that_lays_out_another_canvas_is_refused() -> None:
    made, _ = session()
    made.step()
    rule = sampler("sampler/region=growing", "sampler.region.initial_length=4")
    with pytest.raises(ConfigError, match="sample s2: another region lays out another canvas"):
        made.change(replace(made.setting, sampler=rule))

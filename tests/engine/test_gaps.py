"""Answers of which only the gaps are decoded."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from constraining import Rewriting, Watching
from tiny_decoding import EOS, MASK, decode

from dllm import config as configuration
from dllm.errors import ConfigError
from dllm.step.canvas import Canvas, Prompt
from dllm.step.decision import Decision
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from dllm.step.trace import Trace


REGION = (9, 8, 7, 6, MASK, 5, MASK, MASK, 4, MASK, EOS, EOS)
"""Three blocks of four: nothing to decode in the first, three gaps, one gap."""


BLOCKS = "sampler.region.block_length=4"


def sampler(*options: str) -> Sampler:
    config = configuration.compose(options)
    return configuration.build(config.sampler, "sampler")


def gaps(*options: str, region: tuple[int, ...] = REGION, **more: Any) -> Outcome:
    prompt = Prompt("one", (3, 4, 5), len(region), region=region)
    return decode(sampler(*options), [prompt], record=True, **more)["one"]


@pytest.mark.parametrize(
    "options",
    [
        ["sampler=low_confidence", BLOCKS],
        ["sampler=threshold", "sampler.threshold=0.3", BLOCKS],
        ["sampler=localleap", BLOCKS],
        ["sampler=klass", BLOCKS],
        ["sampler=random", BLOCKS],
        ["sampler=adablock", "sampler.region.delimiter_ids=[5]"],
        ["sampler=ete", "sampler.base.region.block_length=4"],
        ["sampler=wino", BLOCKS],
        ["sampler=wino", "sampler.threshold=0.1", "sampler.threshold_back=1.0", BLOCKS],
        ["sampler=llada2_edit", "sampler.edit_threshold=0.0", "sampler/region=fixed", BLOCKS],
        ["sampler=hierarchy_remask", BLOCKS],
        ["sampler=freedave", "sampler.base.region.block_length=4"],
    ],
)
def test_what_is_given_stays(options: list[str]) -> None:
    outcome = gaps(*options)
    given = np.array(REGION) != MASK
    found = np.array(outcome.tokens)
    assert (found[given] == np.array(REGION)[given]).all()
    assert (found != MASK).all()
    assert outcome.failure is None
    assert outcome.trace is not None
    *_, last = outcome.trace.replay()
    assert last.tolist() == list(outcome.tokens)
    again = Trace.from_json(outcome.trace.to_json())
    assert again == outcome.trace


def test_one_token_per_step_takes_as_many_forwards_as_gaps() -> None:
    outcome = gaps("sampler=low_confidence", BLOCKS)
    assert outcome.cost.nfe == outcome.committed == 4
    assert outcome.trace is not None
    assert [step.positions for step in outcome.trace.steps][-1] == [9]
    assert {p for step in outcome.trace.steps[:3] for p in step.positions} == {4, 6, 7}


def test_the_gaps_see_what_is_behind_them() -> None:
    other = (*REGION[:8], 17, *REGION[9:])
    first, second = (gaps("sampler=low_confidence", BLOCKS, region=r) for r in (REGION, other))
    assert first.trace is not None and second.trace is not None
    assert first.trace.steps[0].scores != second.trace.steps[0].scores


@pytest.mark.parametrize(
    ("region", "more", "said"),
    [
        ((*REGION[:-1], EOS, EOS), {}, "has 13 positions"),
        ((5,) * 12, {}, "has no gap"),
        ((99, *REGION[1:]), {}, "outside the vocabulary"),
        (REGION, {"eos": EosPolicy.FILL_AFTER_BLOCK}, "use eos=none"),
    ],
)
def test_what_can_not_be_filled(region: tuple[int, ...], more: dict, said: str) -> None:
    prompt = Prompt("one", (3, 4, 5), 12, region=region)
    with pytest.raises(ConfigError, match=said):
        decode(sampler("sampler=threshold", BLOCKS), [prompt], **more)


@dataclass(frozen=True, kw_only=True)
class Revoking(Sampler):
    """Overwrites or masks again all that it finds decided, given or not."""

    how: str
    may_commit_nothing: ClassVar[bool] = True

    def max_steps(self, positions: int) -> int:
        return positions

    def plan(self, canvas: Canvas, eligible: np.ndarray, state: SamplerState) -> Request:
        return Request(pad_positions(canvas.in_block()))

    def select(self, view: View, state: SamplerState) -> Decision:
        found = (view.tokens != MASK) & (view.column(view.canvas.step_in_block) < 3)
        remask, edit = (found, None) if self.how == "remask" else (None, found)
        tokens, score = self.proposer.propose(view), view.candidates.double()
        return Decision(view.candidates, tokens, score, remask=remask, edit=edit)


@pytest.mark.parametrize("constraint", [None, Watching(set())])
@pytest.mark.parametrize("how", ["remask", "edit"])
def test_no_rule_touches_what_is_given(how: str, constraint: Watching | None) -> None:
    base = sampler("sampler=threshold", BLOCKS)
    parts = {name: getattr(base, name) for name in ("region", "proposer", "conf_dtype")}
    prompt = Prompt("one", (3, 4, 5), len(REGION), region=REGION)
    rule = Revoking(how=how, **parts)
    outcome = decode(rule, [prompt], constraint=constraint)["one"]
    found, given = np.array(outcome.tokens), np.array(REGION) != MASK
    assert (found[given] == np.array(REGION)[given]).all()
    assert outcome.failure is None and (found != MASK).all()


def test_no_constraint_rewrites_what_is_given() -> None:
    outcome = gaps("sampler=threshold", BLOCKS, constraint=Rewriting(9))
    assert outcome.failure is not None and "which was given" in outcome.failure


@pytest.mark.parametrize(
    "options",
    [
        ["sampler=daedal", "sampler.region.initial_length=12"],
        ["sampler=rho_eos", "sampler.region.initial_length=12"],
        ["sampler=dystruct", "sampler.delimiter_ids=[5]"],
        ["sampler=eotp", "sampler.base.region.block_length=4"],
        ["sampler=window", "sampler.early_stop=true", "sampler.base.region.block_length=4"],
    ],
)
def test_a_rule_that_decides_the_length_has_no_gaps_to_fill(options: list[str]) -> None:
    with pytest.raises(ConfigError, match="gaps are filled on a canvas of one length"):
        gaps(*options)

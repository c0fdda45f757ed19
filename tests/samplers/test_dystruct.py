"""Dystruct (reconstruction): limit cases, bounds and invariances."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from constraining import Forbidding
from scripted import Script, built
from tiny_decoding import EOS, MASK, SPEC, decode, random_model

from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.step.canvas import Prompt
from dllm.step.constraint import Accepted, Proposal, Verdict, Vetoes
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction, View
from dllm.step.sampler import Sampler


class Unmasked(Predictor):
    """Never predicts the mask token, which the rules treat differently."""

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        prediction = super().predict(plan, store)
        assert prediction is not None
        logits = prediction.logits.clone()
        logits[..., MASK] = -torch.inf
        return replace(prediction, logits=logits)


FIXED = (
    "sampler.structure.length_mode=all",
    "sampler.schedule.instability_weight=0.0",
    "sampler.weld_radius=0",
    "sampler.quota=false",
    "sampler.stop_at_end=false",
)


@pytest.mark.parametrize("inference", ["map", "sample"])
@pytest.mark.parametrize(
    ("seed", "block", "threshold"),
    [(0, 8, 0.6), (1, 8, 1.0), (2, 16, 0.6), (3, 16, 0.9), (4, 4, 0.9)],
)
def test_dystruct_with_a_fixed_structure_is_fast_dllm(
    seed: int, block: int, threshold: float, inference: str
):
    predictor = Unmasked(random_model(SPEC, seed))
    prompts = [Prompt(str(n), tuple(range(3, 5 + n)), 32) for n in range(3)]
    plain = built(
        "sampler=threshold",
        f"sampler.threshold={threshold}",
        f"sampler.region.block_length={block}",
    )
    blocks = [f"sampler.structure.{name}={block}" for name in ("min_block", "max_block")]
    dystruct = built(
        "sampler=dystruct",
        *FIXED,
        *blocks,
        f"sampler.structure.inference={inference}",
        f"sampler.threshold={threshold}",
        "sampler.delimiter_ids=[4]",
        "sampler.region.largest_window=32",
    )
    expected = decode(plain, prompts, predictor)
    for name, outcome in decode(dystruct, prompts, predictor, batch_size=3).items():
        assert outcome.tokens == expected[name].tokens
        assert outcome.cost.nfe == expected[name].cost.nfe


def dystruct(*options: str) -> Sampler:
    small = ("sampler.region.largest_window=16", "sampler.region.first_window=8")
    return built("sampler=dystruct", "sampler.delimiter_ids=[4,5]", *small, *options)


@pytest.mark.parametrize("inference", ["map", "sample"])
def test_dystruct_welds_and_does_not_depend_on_the_batch(inference: str):
    prompts = [Prompt(str(n), tuple(range(3, 5 + n)), 40) for n in range(4)]
    rule = dystruct(f"sampler.structure.inference={inference}")
    alone = decode(rule, prompts, record=True)
    together = decode(rule, prompts, batch_size=3)
    welded = 0
    for name, outcome in alone.items():
        assert MASK not in outcome.tokens
        assert EOS not in outcome.tokens[:-1]
        assert outcome.tokens == together[name].tokens
        assert outcome.cost.nfe == together[name].cost.nfe
        assert outcome.trace is not None
        assert list(outcome.trace.replay())[-1].tolist() == list(outcome.tokens)
        welded += sum(len(step.remasked) for step in outcome.trace.steps)
    assert welded > 0


@pytest.mark.parametrize("forwards", [1, 2, 3])
def test_a_weld_is_spread_over_its_forwards(forwards: int):
    """What is masked again is decided by as many forwards, most of it first."""
    prompts = [Prompt(str(n), tuple(range(3, 5 + n)), 40) for n in range(4)]
    rule = dystruct(f"sampler.weld_steps={forwards}", "sampler.weld_threshold=0.95")
    spread = 0
    for outcome in decode(rule, prompts, record=True).values():
        assert outcome.trace is not None
        steps, end = iter(zip(outcome.trace.steps, outcome.trace.replay(), strict=True)), 0
        for step, canvas in steps:
            end = step.opened[1] if step.opened else end
            masks = int((canvas[:end] == MASK).sum()) if step.remasked else 0
            for left in range(forwards, 0, -1):
                if masks:
                    found = len(next(steps)[0].positions)
                    assert found == -(-masks // left)
                    masks -= found
                    spread += left < forwards
            assert not masks
    assert (spread > 0) == (forwards > 1)


def windows(outcome: Outcome) -> list[tuple[int, int]]:
    assert outcome.trace is not None
    return [step.opened for step in outcome.trace.steps if step.opened is not None]


def test_sampled_structure_follows_the_seed_alone():
    prompts = [Prompt(str(n), (3, 4, 5), 40) for n in range(6)]
    rule = dystruct("sampler.structure.inference=sample")
    first = decode(rule, prompts, record=True, seed=1)
    again = decode(rule, prompts[::-1], record=True, seed=1, batch_size=4)
    other = decode(rule, prompts, record=True, seed=2)
    for name, outcome in first.items():
        assert windows(again[name]) == windows(outcome)
        assert again[name].tokens == outcome.tokens
    # The prompts are equal, their generators are not.
    assert len({tuple(windows(outcome)) for outcome in first.values()}) > 1
    assert any(windows(other[name]) != windows(outcome) for name, outcome in first.items())


class Objection(Forbidding):
    """Refuses what the first selections that open a window would commit."""

    def __init__(self) -> None:
        super().__init__(set())
        self.asked: Counter[tuple[str, int]] = Counter()

    def review(self, view: View, proposal: Proposal) -> Verdict:
        canvas = view.canvas
        mark = canvas.prompts[0].sample_id, int(canvas.block_start[0])
        if canvas.step_in_block[0] or self.asked[mark] >= 12 or not proposal.commits:
            return Accepted()
        self.asked[mark] += 1
        return Vetoes(tuple((c.position, c.token) for c in proposal.commits))


@pytest.mark.parametrize("inference", ["map", "sample"])
def test_a_veto_does_not_move_a_windows_end(inference: str):
    prompts = [Prompt(str(n), tuple(range(3, 5 + n)), 40) for n in range(4)]
    rule = dystruct(f"sampler.structure.inference={inference}")
    constraint = Objection()
    for outcome in decode(rule, prompts, record=True, constraint=constraint).values():
        assert MASK not in outcome.tokens
        ends = [end for _, end in windows(outcome)]
        assert ends == sorted(set(ends)) and len(outcome.tokens) <= ends[-1]
    assert constraint.asked


def test_dystruct_stops_at_its_last_forward_with_a_complete_window():
    prompts = [Prompt("one", (3, 4), 40)]
    outcome = decode(dystruct("sampler.max_forwards=3"), prompts)["one"]
    assert outcome.cost.nfe == 3
    assert MASK not in outcome.tokens


class NoWayBack(Forbidding):
    """Refuses the tokens that a weld would put back."""

    def __init__(self) -> None:
        super().__init__(set())
        self.refused = 0

    def review(self, view: View, proposal: Proposal) -> Verdict:
        changes = proposal.changes
        edits = zip(changes.edit_positions.tolist(), changes.edit_tokens.tolist(), strict=True)
        refused = tuple(edits)
        self.refused += len(refused)
        return Vetoes(refused) if refused else Accepted()


def test_a_weld_stays_where_what_it_replaced_is_refused():
    prompts = [Prompt(str(n), tuple(range(3, 5 + n)), 40) for n in range(4)]
    constraint = NoWayBack()
    rule = dystruct("sampler.weld_threshold=0.95")
    for outcome in decode(rule, prompts, constraint=constraint, record=True).values():
        assert outcome.failure is None
        assert MASK not in outcome.tokens
    assert constraint.refused > 0


@pytest.mark.parametrize(("sure", "length"), [(1.0, 11), (0.06, 2)])
def test_a_window_is_as_long_as_the_one_before_was_stable(sure: float, length: int):
    """The most probable lengths of Poisson priors: 8 for the first window, then 12 where
    all was sure, 2.7 where little was; of two that are equally likely the shorter one."""
    rule = built(
        "sampler=dystruct",
        "sampler.delimiter_ids=[4]",
        "sampler.structure.length_mode=prior",
        "sampler.structure.min_block=1",
        "sampler.region.smallest_window=2",
        "sampler.region.largest_window=12",
        "sampler.region.first_window=8",
        "sampler.threshold=0.0",
        "sampler.weld_radius=0",
    )
    prompt = Prompt("one", (5, 6, 7), 30)
    script = Script([[(9, sure)] * 30], 3)
    outcome = decode(rule, [prompt], script, record=True)["one"]
    assert windows(outcome)[:3] == [(0, 7), (7, 7 + length), (7 + length, 7 + 2 * length)]

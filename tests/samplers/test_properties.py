"""Invariants of every rule over random scores, masks and batches."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_decoding import SPEC
from written import Step, offsets, rule, step_of

from dllm.step.sampler import Sampler


WHOLE = {"region.block_length": "null"}
scores = st.floats(0.05, 1.0).map(lambda c: round(c, 9))  # what a softmax keeps apart
cells = st.one_of(st.none(), scores)
rows = st.lists(cells, min_size=1, max_size=10)
batches = st.lists(rows, min_size=1, max_size=4)
unit = st.floats(0.0, 1.0)
few = settings(max_examples=60, deadline=None)


def written(name: str, **options: object) -> Sampler:
    return rule(name, **WHOLE, **options)


# Configurations are composed once; hypothesis varies the rest through `replace`.
THRESHOLD, LEAP, FACTOR = written("threshold"), written("localleap"), written("factor")
DINFER, HIERARCHY = written("dinfer_threshold"), written("dinfer_hierarchy")
EB, CREDIT, KLASS, WINO = (written(n) for n in ("eb_sampler", "credit", "klass", "wino"))
RULES = (THRESHOLD, LEAP, FACTOR, DINFER, HIERARCHY, EB, CREDIT, KLASS, written("pc_sampler"))
RULES += (written("certainty_prior"), written("ar"), written("dream_entropy", steps=1))


def changed(base: Sampler, **options: object) -> Sampler:
    return type(base)(**{**vars(base), **options})


def chosen(base: Sampler, *batch: list, **options: object) -> list[set[int]]:
    step = step_of(changed(base, **options), *batch)
    return offsets(step.decide().commit, step.view)


@few
@given(rows, unit, unit, st.integers(0, 6))
def test_localleap_lies_between_two_thresholds(
    row: list, high: float, low: float, radius: int
) -> None:
    low, high = sorted((low, high))
    strict = chosen(THRESHOLD, row, threshold=high)[0]
    loose = chosen(THRESHOLD, row, threshold=low)[0]
    leap = chosen(LEAP, row, threshold=high, relaxed_threshold=low, radius=radius)[0]
    assert strict <= leap <= loose
    assert chosen(LEAP, row, threshold=high, relaxed_threshold=high, radius=radius)[0] == strict
    assert chosen(LEAP, row, threshold=high, relaxed_threshold=low, radius=0)[0] == strict


@few
@given(rows, unit)
def test_dinfer_threshold_without_near_ties(row: list, threshold: float) -> None:
    values = sorted(c for c in row if c is not None)
    if any(b - a < 1e-3 for a, b in pairwise(values)):
        return
    # Its softmax is in float32: keep away from equality.
    if any(abs(c - threshold) < 1e-5 for c in values):
        return
    same = chosen(THRESHOLD, row, threshold=threshold)
    assert chosen(DINFER, row, threshold=threshold) == same
    assert chosen(CREDIT, row, threshold=threshold, logits_transform=None) == same


@few
@given(rows)
def test_limits(row: list) -> None:
    masks = {i for i, c in enumerate(row) if c is not None}
    best = chosen(THRESHOLD, row, threshold=1.0)[0]
    sure = {i for i, c in enumerate(row) if c == 1.0}
    assert len(best) == min(1, len(masks)) or best == sure
    assert chosen(FACTOR, row, factor=1e9)[0] == masks
    assert len(chosen(FACTOR, row, factor=1e-9, last_rank_quirk=False)[0] - sure) <= 1
    assert chosen(EB, row, gamma=math.inf)[0] == masks
    alone = chosen(EB, row, gamma=0.0)[0]
    assert len(alone - sure) <= 1 and bool(alone) == bool(masks)


@few
@given(rows, unit)
def test_hierarchy_without_low_rule_is_a_strict_threshold(row: list, threshold: float) -> None:
    strict = {i for i, c in enumerate(row) if c is not None and c > threshold + 1e-9}
    got = chosen(HIERARCHY, row, threshold=threshold, low_threshold=1.0)[0]
    assert strict <= got
    assert len({i for i in got if (row[i] or 0) < threshold - 1e-9}) <= 1


@few
@given(rows, unit)
def test_wino_without_revoking_is_a_capped_strict_threshold(row: list, threshold: float) -> None:
    step = step_of(changed(WINO, threshold=threshold, threshold_back=0.0), row)
    decision = step.decide()
    assert decision.remask is not None and not decision.remask.any()
    got = offsets(decision.commit, step.view)[0]
    above = {i for i, c in enumerate(row) if c is not None and c > threshold + 1e-9}
    masks = [c for c in row if c is not None]
    assert len(got) <= max(1, min(max(int(0.7 * len(masks)), 5), 20))
    assert len(got - above) <= 1 or all(abs((row[i] or 0) - threshold) < 1e-6 for i in got - above)


@few
@given(batches, st.randoms(use_true_random=False), st.sampled_from(RULES))
def test_every_rule(batch: list, random: object, base: Sampler) -> None:
    """Commits lie within the candidates, make progress, and no row depends on another one."""
    step = step_of(base, *batch)
    decision = step.decide()
    assert not bool((decision.commit & ~step.view.candidates).any())
    together = offsets(decision.commit, step.view)
    for row, got in zip(batch, together, strict=True):
        masks = [c for c in row if c is not None]
        if masks and not base.may_commit_nothing:
            assert got
        assert len(got) <= len(masks)
    assert together == [chosen(base, row)[0] for row in batch]
    order = list(range(len(batch)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = chosen(base, *[batch[i] for i in order])
    assert shuffled == [together[i] for i in order]
    # Selection is repeatable: nothing in it changes the state.
    assert torch.equal(base.select(step.view, step.state).commit, decision.commit)


@few
@given(st.lists(scores, min_size=1, max_size=8), st.sampled_from(RULES), st.data())
def test_a_vetoed_proposal_is_never_asked_for_again(row: list, base: Sampler, data) -> None:
    step = step_of(base, row)
    first = step.decide()
    at = data.draw(st.integers(0, len(row) - 1))
    vetoed = torch.zeros_like(step.view.logits, dtype=torch.bool)
    vetoed[0, at, first.tokens[0, at]] = True
    second = base.select(step.view.veto(vetoed), step.state)
    assert int(second.tokens[0, at]) != int(first.tokens[0, at])


@few
@given(st.lists(scores, min_size=2, max_size=8), st.floats(0.1, 5.0), st.floats(0.0, 0.99))
def test_credit_never_lowers_the_favourite(row: list, fusion: float, decay: float) -> None:
    transform = type(CREDIT.logits_transform)(
        fusion=fusion, decay=decay, exponent=0.2, adaptive=False
    )
    step = step_of(changed(CREDIT, logits_transform=transform), row)
    before = step.view.logits.softmax(-1).amax(-1)
    for _ in range(3):
        decision = step.decide()
        assert bool((decision.score >= before.float() - 1e-6).all())


def dense_credit(step: Step, times: int) -> torch.Tensor:
    """The official [rows, vocabulary] form, for constant predictions."""
    p = step.view.logits.float().softmax(-1)
    top, token = p.max(-1)
    credit = torch.zeros_like(p)
    for _ in range(times):
        credit = (0.8 * credit).scatter_add(-1, token[..., None], (top**0.2)[..., None])
    return step.view.logits.float() + 0.7 * credit.log1p()


@few
@given(st.lists(scores, min_size=1, max_size=8), st.integers(1, 5))
def test_sparse_credit_equals_the_dense_form(row: list, times: int) -> None:
    step = step_of(CREDIT, row)
    for _ in range(times):
        CREDIT.observe(step.view, step.state)
    assert CREDIT.logits_transform is not None
    sparse = CREDIT.logits_transform.apply(step.view, step.state).logits
    assert sparse.shape[-1] == SPEC.vocab_size
    torch.testing.assert_close(sparse, dense_credit(step, times))


@pytest.mark.parametrize("base", RULES, ids=lambda r: type(r).__name__)
def test_empty_and_single_rows(base: Sampler) -> None:
    assert chosen(base, [None, None]) == [set()]
    assert chosen(base, [0.3]) == [{0}]
    assert chosen(base, [None, 0.3, None], [0.9, 0.2, 0.1])[0] == {1}

"""Worked examples of EB-Sampler, KLASS, PC-Sampler, WINO, the certainty prior and AR
order."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted import built
from test_threshold_family import rule, steps
from tiny_decoding import SPEC, WrittenPredictor, canvas_of, decode, decode_written, sampler
from written import DECIDED, PROMPT, Twin, offsets, one, picked, proposal, step_of

from dllm.errors import ConfigError
from dllm.step import scores
from dllm.step.canvas import Prompt
from dllm.step.density import certainty_density
from samplers.parts import background


def top_for_entropy(h: float) -> float:
    """Probability of the most likely token of a spread distribution with this entropy."""
    low, high = 1 / SPEC.vocab_size, 1.0
    for _ in range(60):
        p = (low + high) / 2
        rest = 1 - p
        entropy = -p * math.log(p) - rest * math.log(rest / (SPEC.vocab_size - 1))
        low, high = (low, p) if entropy < h else (p, high)
    return high


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, {0}),
        (0.0015, {0, 1}),
        (0.01, {0, 1, 2, 3}),
        (0.1, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3, 4}),
    ],
)
def test_entropy_budget(gamma: float, expected: set[int]) -> None:
    row = [top_for_entropy(h) for h in (0.001, 0.002, 0.004, 0.5, 0.9)]
    assert one(rule("eb_sampler", gamma=gamma), row) == expected


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [(0.01, [[0, 1], [2], [3], [4]]), (0.1, [[0, 1, 2, 3], [4]])],
)
def test_entropy_budget_of_six_way_distributions(gamma: float, expected: list) -> None:
    sure = (0.9999, 0.999, 0.99, 0.5, 0.4)
    written = rule("eb_sampler", gamma=gamma, **{"region.block_length": "null"})
    predictor = WrittenPredictor([2, 3, 4, 5, 2], sure, 3, spec=replace(SPEC, vocab_size=6))
    trace = decode(written, [Prompt("s", (2, 3, 4), 5)], predictor, record=True)["s"].trace
    assert [sorted(step.positions) for step in trace.steps] == expected


def test_entropy_values() -> None:
    p = torch.tensor([[0.9999, *[0.0001 / 5] * 5], [0.5, *[0.1] * 5], [1.0, *[0.0] * 5]])
    h = scores.entropy(p.double().log()[None], "float64")[0]
    assert h.tolist() == pytest.approx([0.0012, 1.498, 0.0], abs=5e-4)


def test_entropy_budget_of_d2cache_counts_all_but_the_last() -> None:
    row = [top_for_entropy(h) for h in (0.001, 0.002, 0.004, 0.5, 0.9)]
    assert one(rule("eb_d2cache", gamma=0.0015), row) == {0, 1}
    # Ordered by confidence, a late small entropy no longer rides along for free.
    logits = {0: [math.log(0.9), math.log(0.1), *[-math.inf] * 22]}
    step = step_of(rule("eb_d2cache", gamma=0.05), (0.9, 0.85), logits=logits)
    assert offsets(step.decide().commit, step.view) == [{0}]


CLOSE = (0.97, 0.96, 0.95, 0.94, 0.5)


def test_klass_waits_for_stability() -> None:
    whole = {"region__block_length": "null"}
    assert steps("klass", CLOSE, **whole) == [[0], [1], [2, 3], [4]]
    sure = (0.97, 0.96, 0.95, 0.5, 0.97, 0.96, 0.95, 0.94)
    assert steps("klass", sure) == [[0], [1], [2], [3], [4], [5, 6, 7]]


def test_klass_divergence() -> None:
    written = rule("klass", **{"region.block_length": "null"})

    def seen(*p: float) -> list[float]:
        return [*[math.log(x) for x in p], *[-math.inf] * (24 - len(p))]

    step = step_of(written, (0.5,), logits={0: seen(0.86, 0.09, 0.05)})
    written.observe(step.view, step.state)
    later = step_of(written, (0.5,), logits={0: seen(0.93, 0.04, 0.03)}).view
    written.observe(replace(later, canvas=step.canvas), step.state)
    first, second = step.state["klass_kl"][0, len(PROMPT)].tolist()
    assert second == pytest.approx(0.0250, abs=5e-5)
    assert first == pytest.approx(27, abs=1)


def test_klass_masks_behind_a_block_are_decoded_further_or_left() -> None:
    sure = (0.99, 0.98, 0.97, 0.96, 0.95, 0.5)
    options = {"steps": 3, "region__block_length": "null"}
    committed = steps("klass", sure, **options)
    assert committed == [[0, 1], [2, 3], [4], [5]]
    assert steps("klass", sure, masks_left="leave", **options) == committed[:3]


def test_klass_strictness() -> None:
    for inclusive, expected in (("true", {0, 1}), ("false", {0})):
        written = rule("klass", inclusive=inclusive, **{"region.block_length": "null"})
        step = step_of(written, (0.95, 0.9), step=1)
        step.state["klass_kl"][:] = 0.0
        score = torch.tensor([[0.95, 0.9]], dtype=torch.float64)
        assert offsets(written.choose(score, step.view, step.state), step.view) == [expected]


def test_klass_without_stability_is_a_strict_threshold() -> None:
    written = rule("klass", kl_threshold=1e9, history=1, **{"region.block_length": "null"})
    assert one(written, (0.95, 0.91, 0.89, 0.3)) == {0, 1}
    assert one(written, (0.5, 0.6)) == {1}


def table(path: Path, counts: dict[int, int], total: int) -> Path:
    path.write_text(json.dumps({"num_token": total, "p_baseline_dict": counts}))
    return path


@pytest.mark.parametrize(
    ("decay", "expected", "pick"),
    [
        (0.0, (2.966, 7.368, 9.670, 3.058), 2),
        (0.25, (2.966, 5.738, 5.865, 1.445), 2),
        (1.0, (2.966, 2.711, 1.309, 0.152), 0),
    ],
)
def test_pc_scores(tmp_path: Path, decay: float, expected: tuple, pick: int) -> None:
    counts = {proposal(0): 500_000, proposal(1): 1000, proposal(2): 10, proposal(3): 400_000}
    path = table(tmp_path / "b.json", counts, 10_000_000)
    written = rule("pc_sampler", position_decay=decay, background=path)
    step = step_of(written, (0.99, 0.80, 0.70, 0.95))
    decision = step.decide()
    assert decision.score[0].tolist() == pytest.approx(expected, abs=6e-4)
    assert offsets(decision.commit, step.view) == [{pick}]


def test_pc_clip_ties_go_to_the_first_position(tmp_path: Path) -> None:
    path = table(tmp_path / "b.json", {proposal(0): 10, proposal(1): 1}, 100_000_000)
    whole = {"region.block_length": "null"}
    written = rule("pc_sampler", position_decay=0.0, background=path, **whole)
    step = step_of(written, (0.99, 0.9))
    assert step.decide().score[0].tolist() == [10.0, 10.0]
    assert offsets(step.decide().commit, step.view) == [{0}]


def test_background_of_a_corpus() -> None:
    counted = background.count([[3, 3, 5], [5, 3]])
    assert counted == {"num_token": 5, "p_baseline_dict": {"3": 3, "5": 2}}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"num_token": 1}', '{"num_token":0,"p_baseline_dict":{}}']
)
def test_refused_background(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"sampler\.background="):
        rule("pc_sampler", background=path)
    with pytest.raises(ConfigError, match="No such file"):
        rule("pc_sampler", background=tmp_path / "absent.json")


@pytest.mark.parametrize("token", [-1, SPEC.vocab_size])
def test_a_background_counts_the_model_s_tokens(tmp_path: Path, token: int) -> None:
    path = table(tmp_path / "other.json", {3: 4, token: 1}, 5)
    with pytest.raises(ConfigError, match=f"counts token id {token}, which is outside"):
        rule("pc_sampler", background=path).check_model(SPEC)


def wino(row: tuple, last: int = 30) -> tuple[set[int], set[int]]:
    """(committed, revoked) positions."""
    written = rule("wino", threshold=0.6, threshold_back=0.9)
    step = step_of(written, row)
    step.state["wino_last"][:] = last
    decision = step.decide()
    assert decision.remask is not None
    return offsets(decision.commit, step.view)[0], offsets(decision.remask, step.view)[0]


def test_wino_caps_what_it_accepts() -> None:
    accepted, _ = wino((0.95, 0.7, 0.65, 0.62, 0.61, 0.605, 0.3, 0.2))
    assert accepted == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("shadow", "last", "revoked"),
    [
        ((0.99, 0.4, 0.95, 0.85, 0.97, 0.96), 5, {1, 3}),
        ((0.99, 0.4, 0.3, 0.85, 0.5, 0.2), 3, {2, 5}),
    ],
)
def test_wino_takes_back(shadow: tuple[float, ...], last: int, revoked: set[int]) -> None:
    row = (*map(Twin, shadow), 0.8, 0.7)
    assert wino(row, last) == ({6, 7}, revoked)


def test_wino_takes_nothing_back_after_a_single_commit() -> None:
    assert wino((Twin(0.1), Twin(0.2), 0.8, 0.5), 5) == ({2}, set())


class Shadowed(WrittenPredictor):
    """Twins agree with what was committed, except at one position."""

    def predict(self, plan, store):
        wanted = plan.logits_for
        width = self.prompt_length + len(self.answer)
        twins = wanted >= width
        at = torch.where(twins, wanted - width + self.prompt_length, wanted)
        prediction = super().predict(replace(plan, logits_for=at), store)
        for entry, row in twins.nonzero().tolist():
            index = int(at[entry, row]) - self.prompt_length
            p = 0.5 if index == 2 else 0.99
            rest = torch.tensor((1 - p) / (self.spec.vocab_size - 1)).double().log()
            prediction.logits[entry, row] = rest
            prediction.logits[entry, row, self.answer[index]] = math.log(p)
        return prediction


def test_wino_from_start_to_end() -> None:
    sure = (0.95, 0.94, 0.93, 0.92, 0.91, 0.90, 0.89, 0.88, 0.7, 0.65, 0.4, 0.3)
    answer = [proposal(i) for i in range(12)]
    written = rule("wino", threshold=0.6, threshold_back=0.9, **{"region.block_length": "null"})
    outcome = decode(written, [Prompt("s", PROMPT, 12)], Shadowed(answer, sure, 3), record=True)[
        "s"
    ]
    assert outcome.trace is not None
    seen = [(sorted(step.positions), step.remasked) for step in outcome.trace.steps]
    assert seen == [(list(range(8)), []), ([8, 9], [2]), ([2], []), ([10], []), ([11], [])]
    assert list(outcome.tokens) == answer
    # Every forward is a block longer than the canvas.
    assert [step.fed for step in outcome.trace.steps] == [3 + 12 + 12] * 5


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        ({0, 1, 7}, (0.941, 0.700, 0.300, 0.059, 0.009, 0.059, 0.300, 0.700)),
        ({0, 1}, (0.941, 0.700, 0.300, 0.059, 0.005, 0.000, 0.0, 0.0)),
    ],
)
def test_certainty_prior(decided: set[int], expected: tuple[float, ...]) -> None:
    canvas = canvas_of([DECIDED if i in decided else 0 for i in range(8)])
    density = certainty_density(canvas, 1.0)[0]
    assert density[3:11].tolist() == pytest.approx(expected, abs=6e-4)
    assert not density[:3].any()


def test_certainty_prior_ranks_and_thresholds_the_product() -> None:
    near = rule("certainty_prior", sigma=2.0, **{"region.block_length": "null"})
    assert one(near, (0.7, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.95)) == {0}
    free = rule("certainty_prior", sigma=2.0, threshold=0.0, **{"region.block_length": "null"})
    assert one(free, (0.7, 0.5, 0.5, 0.95)) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.9, {1, 2}), (0.99, {1}), (0.0, {1, 2, 3, 4})]
)
def test_ar_order(threshold: float, expected: set[int]) -> None:
    row = (None, 0.95, 0.92, 0.5, 0.97, None, 0.99)
    assert one(rule("ar", threshold=threshold), row) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"denoising_steps": 1}, {0, 1, 2, 3}),
        ({"denoising_steps": 2}, {0, 3}),
        ({"denoising_steps": 4, "threshold": 0.6}, {0, 2, 3}),
        ({"denoising_steps": 4, "threshold": 0.9}, {0}),
        ({"mode": "static", "denoising_steps": 4}, {0}),
        ({"mode": "sequential", "denoising_steps": 2}, {0, 1}),
    ],
)
def test_dynamic_or_quota(options: dict, expected: set[int]) -> None:
    assert one(rule("sdar", **options), (0.9, 0.5, 0.7, 0.8)) == expected


def test_a_count_per_step_needs_no_schedule() -> None:
    blocks = ("sampler/region=fixed", "sampler.region.block_length=7")
    count = built("sampler=sdar", *blocks, "sampler.mode=static", "sampler.per_step=3")
    trace = decode_written(count, [9] * 14, [0.9 - 0.05 * i for i in range(14)], record=True).trace
    assert trace is not None
    assert [len(step.positions) for step in trace.steps] == [3, 3, 1, 3, 3, 1]
    with pytest.raises(ConfigError, match="two quotas"):
        rule("sdar", per_step=2, denoising_steps=2)


def test_dynamic_is_strict_and_needs_the_quota() -> None:
    written = rule("sdar", threshold=0.85, denoising_steps=2)
    assert picked(written, 0.85, 0.85, 0.85, 0.9) == {0, 3}
    assert picked(written, 0.86, 0.1, 0.87, 0.9) == {0, 2, 3}


def test_entropy_bounded_blocks() -> None:
    row = [top_for_entropy(h) for h in (0.1, 0.2, 0.04, 1.5)]
    assert one(rule("sdar", mode="entropy_bounded"), row) == {0, 1, 2}
    assert one(rule("sdar", mode="entropy_bounded", entropy_bound=0.0), row) == {2}


def test_editing_overwrites_and_goes_on_until_nothing_changes() -> None:
    written = sampler("sampler=llada2_edit", "sampler/region=fixed")
    step = step_of(written, (Twin(0.99), 0.5, 0.4))
    other = step.view.logits.clone()
    other[0, 0] = other[0, 0].roll(1)
    step.view = step.view.with_logits(other)
    decision = step.decide()
    assert offsets(decision.edit, step.view) == [{0}]
    assert offsets(decision.commit, step.view) == [{1}]
    assert int(decision.tokens[0, 0]) == DECIDED + 1
    # Constant predictions: every commit, then one pass that changes nothing.
    answer = [proposal(i) for i in range(4)]
    outcome = decode(
        written,
        [Prompt("s", PROMPT, 4)],
        WrittenPredictor(answer, (0.6, 0.55, 0.5, 0.45), 3),
        record=True,
    )["s"]
    assert [sorted(s.positions) for s in outcome.trace.steps] == [[0], [1], [2], [3], []]
    assert list(outcome.tokens) == answer


def test_quota_of_dynamic_blocks_never_runs_dry() -> None:
    written = rule("sdar", denoising_steps=2, mode="static")
    canvas = step_of(written, [0.5] * 5, step=9).canvas
    assert np.array_equal(canvas.step_in_block, [9])
    assert one(written, [0.5] * 5, step=9) != set()

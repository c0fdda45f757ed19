"""Worked examples of PC-Sampler, and its table of background frequencies."""

import json
import math
from pathlib import Path

import pytest
from tiny_decoding import SPEC
from written import offsets, proposal, rule, step_of

from dllm.errors import ConfigError
from samplers.parts import background


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


def test_without_a_background_all_tokens_are_alike() -> None:
    """p * ln(vocabulary), weighted by the position; the bound is the same for all."""
    step = step_of(rule("pc_sampler", position_decay=0.5), (0.9, 0.6))
    most = math.log(SPEC.vocab_size)
    expected = [0.9 * most, 0.6 * most * math.exp(-0.5)]
    assert step.decide().score[0, :2].tolist() == pytest.approx(expected, rel=1e-6)
    bound = step_of(rule("pc_sampler", position_decay=0.0, clip=1.5), (0.9, 0.6, 0.4))
    assert bound.decide().score[0, :3].tolist() == pytest.approx([1.5, 1.5, 0.4 * most], rel=1e-6)


def test_background_of_a_corpus() -> None:
    counted = background.count([[3, 3, 5], [5, 3]])
    assert counted == {"num_token": 5, "p_baseline_dict": {"3": 3, "5": 2}}


def test_a_corpus_without_a_token() -> None:
    with pytest.raises(ConfigError, match=r"^the corpus holds no token$"):
        background.count([[], []])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", " holds no num_token and p_baseline_dict"),
        ("[]", " holds no num_token and p_baseline_dict"),
        ('{"num_token": 1}', " holds no num_token and p_baseline_dict"),
        ('{"num_token":0,"p_baseline_dict":{"3":1}}', " counts no token"),
        ('{"num_token":1,"p_baseline_dict":{}}', " counts no token"),
        (None, ": No such file or directory"),
    ],
)
def test_refused_background(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "table.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as error:
        rule("pc_sampler", background=path)
    assert str(error.value) == f"sampler.background={path}{why}"


@pytest.mark.parametrize("token", [-1, SPEC.vocab_size])
def test_a_background_counts_the_model_s_tokens(tmp_path: Path, token: int) -> None:
    path = table(tmp_path / "other.json", {3: 4, token: 1}, 5)
    with pytest.raises(ConfigError) as error:
        rule("pc_sampler", background=path).check_model(SPEC)
    assert str(error.value) == (
        f"sampler.background={path} counts token id {token}, which is outside the vocabulary "
        "[0, 24)"
    )

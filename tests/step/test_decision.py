"""A decision on the host: absolute positions, marks and the progress guard."""

import numpy as np
import pytest
import torch

from dllm.step.decision import Decision, HostDecision, to_host


POSITIONS = np.array([[4, 6, 7, 9]])
ALL = np.ones((1, 4), dtype=bool)


def rows(*indices: int) -> torch.Tensor:
    return torch.tensor([[i in indices for i in range(4)]])


def host(guard: bool = True, candidates: np.ndarray = ALL, **parts: torch.Tensor) -> HostDecision:
    given = {
        "commit": rows(),
        "tokens": torch.tensor([[20, 21, 22, 23]]),
        "score": torch.tensor([[0.25, 0.5, 0.5, 0.125]]),
    }
    open_rows = torch.from_numpy(candidates)
    return to_host(Decision(**{**given, **parts}), POSITIONS, open_rows, guard, None)


def test_commits_are_absolute_positions_with_their_tokens_and_scores() -> None:
    row = host(commit=rows(0, 3)).rows[0]
    assert row.commit_positions.tolist() == [4, 9]
    assert row.commit_tokens.tolist() == [20, 23]
    assert row.commit_scores.tolist() == [0.25, 0.125]
    assert (row.net, row.forced) == (2, False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_token_ids_survive_whatever_the_dtype_of_the_scores(dtype: torch.dtype) -> None:
    ids = [2**31 - 1, 126347, 126463, 151935]
    score = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=dtype)
    decision = host(commit=rows(0, 1, 2, 3), tokens=torch.tensor([ids]), score=score)
    assert decision.rows[0].commit_tokens.tolist() == ids
    assert host(score=score).rows[0].commit_positions.tolist() == [9]


def test_the_guard_takes_the_best_candidate_and_the_first_of_equals() -> None:
    row = host().rows[0]
    assert row.commit_positions.tolist() == [6]
    assert row.forced


def test_the_guard_never_takes_what_is_no_candidate() -> None:
    candidates = np.array([[True, False, False, True]])
    assert host(candidates=candidates).rows[0].commit_positions.tolist() == [4]
    assert host(candidates=np.zeros_like(ALL)).rows[0].commit_positions.tolist() == []


def test_without_the_guard_nothing_is_added() -> None:
    row = host(guard=False).rows[0]
    assert row.commit_positions.size == 0
    assert not row.forced


def test_revocations_are_outnumbered() -> None:
    candidates = np.array([[True, True, False, False]])
    row = host(commit=rows(0), remask=rows(3), candidates=candidates).rows[0]
    assert row.commit_positions.tolist() == [4, 6]
    assert row.remask_positions.tolist() == [9]
    row = host(commit=rows(0), remask=rows(2, 3), candidates=candidates).rows[0]
    assert row.commit_positions.tolist() == [4, 6]
    assert row.remask_positions.tolist() == [9]  # the less sure of the two
    assert row.net == 1


def test_marks_become_positions_and_empty_ones_vanish() -> None:
    row = host(commit=rows(0), marks={"anchors": rows(1, 2), "none": rows()}).rows[0]
    assert {name: at.tolist() for name, at in row.marks.items()} == {"anchors": [6, 7]}


def test_edits_block_ends_stops_and_lengths_are_passed_on() -> None:
    decision = host(
        commit=rows(0),
        edit=rows(2),
        block_done=torch.tensor([True]),
        stop=torch.tensor([True]),
        length=torch.tensor([8]),
    )
    assert decision.rows[0].edit_positions.tolist() == [7]
    assert decision.rows[0].edit_tokens.tolist() == [22]
    assert decision.rows[0].block_done and decision.rows[0].stop
    assert decision.rows[0].length == 8
    quiet = host(commit=rows(0)).rows[0]
    assert not quiet.block_done and not quiet.stop and quiet.length is None

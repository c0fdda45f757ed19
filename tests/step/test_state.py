"""A sampler's declared memory: fill, reset, rows that come and go."""

import pytest
import torch

from dllm.step.state import SamplerState, StateField


FIELDS = (
    StateField("credit", ("canvas", 2), fill=0.5),
    StateField("streak", ("canvas",), dtype=torch.int64, reset="block"),
    StateField("flag", dtype=torch.bool),
)


def filled(rows: int) -> SamplerState:
    state = SamplerState(FIELDS, capacity=3, device="cpu")
    for _ in range(rows):
        state.append()
    return state


def test_shapes_types_and_fill() -> None:
    state = filled(2)
    assert state["credit"].shape == (2, 3, 2) and (state["credit"] == 0.5).all()
    assert state["streak"].dtype == torch.int64 and state["streak"].shape == (2, 3)
    assert state["flag"].tolist() == [False, False]


def test_a_new_sequence_starts_afresh_beside_the_old() -> None:
    state = filled(1)
    state["credit"] += 1
    state.append()
    assert state["credit"][:, 0, 0].tolist() == [1.5, 0.5]


def test_a_row_is_handed_on_in_place() -> None:
    state = filled(2)
    state["credit"] += 1
    state["streak"] = torch.ones(2, 5, dtype=torch.int64)
    places = [state[field.name].data_ptr() for field in FIELDS]
    state.hand_on(0)
    assert state["credit"][:, 0, 0].tolist() == [0.5, 1.5]
    assert state["streak"].tolist() == [[0] * 5, [1] * 5]
    assert [state[field.name].data_ptr() for field in FIELDS] == places


def test_rows_are_dropped_and_reordered_together() -> None:
    state = filled(3)
    state["streak"] = torch.arange(9).view(3, 3)
    state["flag"] = torch.tensor([True, False, False])
    state.keep([2, 0])
    assert state["streak"].tolist() == [[6, 7, 8], [0, 1, 2]]
    assert state["flag"].tolist() == [False, True]


def test_a_block_resets_its_own_fields_of_one_row_only() -> None:
    state = filled(2)
    state["streak"] += 4
    state["credit"] += 1
    state.enter_block(1)
    assert state["streak"].tolist() == [[4, 4, 4], [0, 0, 0]]
    assert (state["credit"] == 1.5).all()


def test_a_widened_tensor_keeps_its_width_for_new_rows() -> None:
    state = filled(1)
    state["credit"] = torch.ones(1, 3, 5)
    state.append()
    assert state["credit"].shape == (2, 3, 5)
    assert state["credit"][1].unique().tolist() == [0.5]


def test_a_tensor_with_other_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="state flag: 2 rows instead of 1"):
        filled(1)["flag"] = torch.zeros(2, dtype=torch.bool)

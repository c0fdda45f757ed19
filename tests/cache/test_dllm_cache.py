"""dLLM-Cache: when prompt and response are computed whole."""

import pytest
from walk import Walk


def test_intervals_of_prompt_and_response() -> None:
    """Intervals 25 and 5."""
    walk = Walk(
        "cache=dllm_cache", "cache.prompt_interval=25", "cache.response_interval=5", masks=8
    )
    whole = {}
    for step in range(26):
        plan = walk.plan()
        assert plan.partial is not None
        whole[step] = (bool(plan.partial.whole[0, 0]), bool(plan.partial.whole[0, 5]))
        walk.decide()
    assert whole[0] == whole[25] == (True, True)
    assert all(whole[step] == (False, True) for step in (5, 10, 15, 20))
    assert all(whole[step] == (False, False) for step in (1, 2, 3, 4, 6, 24))


def test_a_refresh_is_a_step_in_which_both_intervals_meet() -> None:
    """As it is counted: what computes the prompt alone, or the response alone, is a step."""
    walk = Walk("cache=dllm_cache", "cache.prompt_interval=4", "cache.response_interval=2", masks=8)
    kinds = []
    for _ in range(9):
        kinds.append(walk.plan().kind_of(0).value)
        walk.decide()
    assert kinds == ["refresh", "step", "step", "step"] * 2 + ["refresh"]


def test_a_grown_answer_is_computed_whole() -> None:
    """Rows that were not there have no outputs to be kept."""
    walk = Walk("cache=dllm_cache", masks=6)
    walk.canvas.truncate(0, 7)
    for grown in (0, 0, 2):
        walk.canvas.grow(0, grown)
        partial = walk.plan().partial
        assert partial is not None
        expected = walk.canvas.step[0] == 0 or grown > 0
        assert bool(partial.whole[0, : walk.canvas.length[0]].all()) == expected
        assert not partial.pool[0].any() if expected else partial.pool[0, 3:].all()
        walk.decide()


@pytest.mark.parametrize(
    ("first", "share", "expected"), [("true", 0.0, 6), ("false", 0.0, 1), ("false", 0.5, 4)]
)
def test_rows_computed_between_two_refreshes(first: str, share: float, expected: int) -> None:
    """A layer of two whole (11 rows), a share of 8 positions in the others; never none at all."""
    options = (f"cache.update_share={share}", f"cache.always_refresh_first_layer={first}")
    walk = Walk("cache=dllm_cache", *options, masks=8)
    assert walk.plan().fed.tolist() == [11]
    walk.decide(4)
    assert walk.plan().fed.tolist() == [expected]
